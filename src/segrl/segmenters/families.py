"""What the members of the SAM family do differently: the processor, the features to keep, the frame of the prompts.

`transformers.AutoModelForMaskGeneration` picks the model's class from the configuration (hub
configurations of SAM 2.1, SAM 3 and EdgeTAM name their video classes); it has no counterpart for
processors, so `FAMILIES` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """One way in which a SAM encodes images and is asked for masks.

    processor: name of the processor's class in transformers.
    """

    processor: str

    def features(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the mask decoder needs of `(B, 3, h, w)` images, each tensor with B first."""
        raise NotImplementedError

    def decoder_arguments(self, features: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The model's keyword arguments that stand for `features` (each tensor with B first)."""
        raise NotImplementedError

    def input_wh(self, processor: Any, image_hw: tuple[int, int]) -> tuple[float, float]:
        """Width and height that the image has in the model's input, where prompts are measured."""
        raise NotImplementedError

    def upscale(
        self, processor: Any, logits: torch.Tensor, image_hw: tuple[int, int], threshold: float
    ) -> torch.Tensor:
        """Low-resolution logits `(n, 1, h, w)` → bool `(n, 1, H, W)` at the original size."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pyramid(Family):
    """SAM 2, SAM 3's tracker and EdgeTAM: three feature levels; the image is squashed to a square."""

    def features(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """One tensor a level, finest first."""
        return {f"level_{i}": level for i, level in enumerate(model.get_image_embeddings(pixel_values))}

    def decoder_arguments(self, features: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The levels in their order."""
        return {"image_embeddings": [features[name] for name in sorted(features)]}

    def input_wh(self, processor: Any, image_hw: tuple[int, int]) -> tuple[float, float]:
        """The square."""
        return processor.target_size, processor.target_size

    def upscale(
        self, processor: Any, logits: torch.Tensor, image_hw: tuple[int, int], threshold: float
    ) -> torch.Tensor:
        """The processor's own way."""
        return processor.post_process_masks([logits], [image_hw], mask_threshold=threshold)[0]


@dataclass(frozen=True)
class Padded(Family):
    """SAM: one feature map; the longer side is fitted and the rest of the square padded."""

    def features(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The image embedding."""
        return {"image": model.get_image_embeddings(pixel_values)}

    def decoder_arguments(self, features: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The image embedding."""
        return {"image_embeddings": features["image"]}

    def input_wh(self, processor: Any, image_hw: tuple[int, int]) -> tuple[float, float]:
        """The fitted size, without the padding."""
        height, width = processor.image_processor._get_preprocess_shape(image_hw, processor.target_size)
        return width, height

    def upscale(
        self, processor: Any, logits: torch.Tensor, image_hw: tuple[int, int], threshold: float
    ) -> torch.Tensor:
        """The processor's own way: to the padded square, cut, to the original size."""
        width, height = self.input_wh(processor, image_hw)
        return processor.post_process_masks([logits], [image_hw], [(height, width)], mask_threshold=threshold)[0]


@dataclass(frozen=True)
class HighQuality(Padded):
    """SAM-HQ: SAM with an early layer of the vision transformer beside the embedding."""

    def features(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The image embedding and the first of the intermediate ones, the only one the decoder reads."""
        image, intermediate = model.get_image_embeddings(pixel_values)
        return {"image": image, "early": intermediate[0]}

    def decoder_arguments(self, features: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The image embedding and the early layer."""
        return {"image_embeddings": features["image"], "intermediate_embeddings": [features["early"]]}


FAMILIES: Mapping[str, Family] = {
    "sam": Padded("SamProcessor"),
    "sam_hq": HighQuality("SamHQProcessor"),
    "sam2": Pyramid("Sam2Processor"),
    "sam2_video": Pyramid("Sam2Processor"),
    "edgetam": Pyramid("Sam2Processor"),
    "edgetam_video": Pyramid("Sam2Processor"),
    "sam3_tracker": Pyramid("Sam3TrackerProcessor"),
    "sam3_video": Pyramid("Sam3TrackerProcessor"),
}
"""By the `model_type` of the checkpoint's configuration."""
