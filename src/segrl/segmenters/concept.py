"""Concept segmenters: an image and words → every instance of them. SAM 3 through transformers.

Beside the promptable segmenters, not in their place: no policy writes mask prompts here. The result
is the same `Segmentation`, so scoring, evaluation and exports take it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segrl.devices import parse_device, parse_dtype
from segrl.errors import ModelError
from segrl.images import content_id
from segrl.masks import mask_to_box
from segrl.types import ORIGINAL, Answer, MaskPrompt, Segmentation, Status

if TYPE_CHECKING:
    import torch
    from PIL import Image

CONCEPT_MODELS = ("sam3", "sam3_video")
"""By the `model_type` of the checkpoint's configuration; the hub's SAM 3 is a sam3_video."""


def load_concept(
    name_or_path: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    score_threshold: float = 0.3,
    mask_threshold: float = 0.5,
) -> ConceptSegmenter:
    """The concept segmenter called `name_or_path`, on the hub or in a directory.

    device, dtype: as in `load`. score_threshold: instances the model is less sure of are left out.
    mask_threshold: probability above which a pixel belongs to an instance.
    Raises ModelError as `load` does, and for a model that takes no words.
    """
    import transformers

    from segrl.segmenters.checkpoint import model_type, read_model, read_processor

    kind = model_type(name_or_path)
    if kind not in CONCEPT_MODELS:
        known = ", ".join(CONCEPT_MODELS)
        raise ModelError(f"{name_or_path} is a {kind}, no concept segmenter; these are: {known}")
    model = read_model(transformers.Sam3Model, name_or_path, parse_device(device), parse_dtype(dtype))
    processor = read_processor("Sam3Processor", name_or_path)
    return ConceptSegmenter(model, processor, score_threshold=score_threshold, mask_threshold=mask_threshold)


class ConceptSegmenter:
    """A frozen SAM 3 that is asked with words."""

    def __init__(self, model: Any, processor: Any, *, score_threshold: float, mask_threshold: float) -> None:
        self.model = model
        self.processor = processor
        self.score_threshold = score_threshold
        self.mask_threshold = mask_threshold
        self.encoder_calls = self.decoder_calls = 0

    def segment(self, images: Sequence[Image.Image], words: Sequence[str]) -> list[Segmentation]:
        """Every instance of `words[i]` (a short noun phrase) on `images[i]`, surest first.

        masks `(N, H, W)` bool at the original size, on the model's device; the answer has the tight
        box of each. Nothing found is NO_TARGET with N = 0. Equal images of the call are encoded once.
        """
        answered: dict[tuple[str, str], Segmentation] = {}
        keys = [content_id(image) for image in images]
        for first, image in dict(zip(keys, images, strict=True)).items():
            asked = dict.fromkeys(text for key, text in zip(keys, words, strict=True) if key == first)
            answered.update(((first, text), found) for text, found in zip(asked, self._ask(image, asked), strict=True))
        return [answered[key, text] for key, text in zip(keys, words, strict=True)]

    def _ask(self, image: Image.Image, texts: Sequence[str] | dict[str, None]) -> list[Segmentation]:
        """One Segmentation per text, from one encoding of the image."""
        import torch

        with torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
            inputs = self.processor(images=image.convert("RGB"), return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
            features = self.model.get_vision_features(pixels)
            self.encoder_calls += 1
            return [self._decode(features, text, (image.height, image.width)) for text in texts]

    def _decode(self, features: Any, text: str, image_hw: tuple[int, int]) -> Segmentation:
        tokens = self.processor(text=[text], return_tensors="pt").to(self.model.device)
        output = self.model(vision_embeds=features, **tokens)
        self.decoder_calls += 1
        [found] = self.processor.post_process_instance_segmentation(
            output, self.score_threshold, self.mask_threshold, target_sizes=[image_hw]
        )
        order = found["scores"].argsort(descending=True)
        masks = found["masks"].bool()[order] if len(order) else self._nothing(image_hw)
        boxes = [mask_to_box(mask) for mask in masks.cpu().numpy()]
        prompts = tuple(MaskPrompt(box, frame=ORIGINAL) for box in boxes if box is not None)
        status = Status.OK if prompts else Status.NO_TARGET
        return Segmentation(Answer(status, prompts), masks[[box is not None for box in boxes]])

    def _nothing(self, image_hw: tuple[int, int]) -> torch.Tensor:
        import torch

        return torch.zeros((0, *image_hw), dtype=torch.bool, device=self.model.device)
