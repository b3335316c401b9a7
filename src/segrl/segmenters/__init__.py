"""Image + mask prompts → masks, by a frozen segmenter.

    encode(images) ──► embeddings ──► decode(embeddings, prompts) ──► bool masks

`segment` is the one function that turns answers into masks; `load` builds a segmenter by name.
`takes` says what its mask prompts may hold: boxes and points, and of some words and examples.
"""

from segrl.segmenters.loading import load
from segrl.segmenters.protocol import Embedding, Segmenter, check_takes, held, segment, takes

__all__ = ["Embedding", "Segmenter", "check_takes", "held", "load", "segment", "takes"]
