"""Image + mask prompts → masks, by a frozen segmenter.

    encode(images) ──► embeddings ──► decode(embeddings, prompts) ──► bool masks

`segment` is the one function that turns answers into masks; `load` builds a segmenter by name.
`load_concept` builds one that takes words instead of mask prompts.
"""

from segrl.segmenters.concept import load_concept
from segrl.segmenters.loading import load
from segrl.segmenters.protocol import Embedding, Segmenter, segment

__all__ = ["Embedding", "Segmenter", "load", "load_concept", "segment"]
