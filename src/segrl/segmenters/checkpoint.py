"""A SAM checkpoint, from the hub or a directory → model and processor, or one line that says what is missing.

`Family` is what the members of the SAM family do differently: the processor, the features to keep, the frame of the
prompts. `transformers.AutoModelForMaskGeneration` picks the model's class from the configuration (hub configurations
of SAM 2.1, SAM 3 and EdgeTAM name their video classes); it has no counterpart for processors, so `FAMILIES` does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.errors import ModelError
from segrl.text import first_line

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


PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A frozen model in `eval()`, its processor, and its family."""

    model: Any
    processor: Any
    family: Family


def read_checkpoint(name_or_path: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """The checkpoint called `name_or_path` on `device` in `dtype`, frozen.

    Raises ModelError for a directory that is missing or incomplete, a model that is no promptable
    SAM, weights that are missing, and a library that is not installed.
    """
    import transformers

    family = FAMILIES.get(kind := model_type(name_or_path))
    if family is None:
        known = ", ".join(FAMILIES)
        hint = f"; it takes words: concept:{name_or_path}" if kind.startswith("sam3") else f"; these are: {known}"
        raise ModelError(f"{name_or_path} is a {kind}, no segmenter that takes boxes and points{hint}")
    model = read_model(transformers.AutoModelForMaskGeneration, name_or_path, device, dtype)
    _keep_geometry_exact(model)
    return Checkpoint(model, read_processor(family.processor, name_or_path), family)


def model_type(name_or_path: str) -> str:
    """The `model_type` of a checkpoint's configuration; ModelError if it cannot be read or has no processor."""
    import transformers

    _check_directory(name_or_path)
    try:
        return transformers.AutoConfig.from_pretrained(name_or_path).model_type
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the segmenter {name_or_path}: {first_line(error)}") from error


def read_processor(class_name: str, name_or_path: str) -> Any:
    """The processor of a checkpoint, as the class of that name in transformers."""
    import transformers

    try:
        return getattr(transformers, class_name).from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name_or_path} has no processor that can be read: {first_line(error)}") from error


def read_model(reader: Any, name_or_path: str, device: torch.device, dtype: torch.dtype) -> Any:
    """What `reader.from_pretrained` reads, complete, frozen, in `eval()` (SAM's stability fallback runs only there)."""
    from safetensors import SafetensorError

    try:
        model, info = reader.from_pretrained(name_or_path, dtype=dtype, output_loading_info=True)
    except ImportError as error:
        hint = "pip install timm" if "timm" in str(error) else first_line(error)
        raise ModelError(f"{name_or_path} needs a library that is not installed: {hint}") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot read the weights of {name_or_path}: {first_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"the weights of {name_or_path} are incomplete: {len(missing)} missing, first {missing[0]}")
    return model.requires_grad_(False).eval().to(device)


def _check_directory(name_or_path: str) -> None:
    path = Path(name_or_path)
    if not path.is_dir():
        if path.is_absolute() or name_or_path.startswith("."):
            raise ModelError(f"there is no directory {name_or_path}: give a model directory or a name on the hub")
        return
    if not (path / "config.json").exists():
        raise ModelError(f"{name_or_path} holds no config.json: it is no model directory")
    if not any((path / name).exists() for name in PROCESSOR_FILES):
        raise ModelError(
            f"{name_or_path} has no processor: copy {PROCESSOR_FILES[0]} of the original checkpoint beside the weights"
        )


def _keep_geometry_exact(model: Any) -> None:
    """Keep the encoding of prompt coordinates in float32: in bfloat16 it rounds them to 4 pixels of 1024."""
    encoder = model.prompt_encoder
    encoder.shared_embedding = copy.deepcopy(encoder.shared_embedding).float()
