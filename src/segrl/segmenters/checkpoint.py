"""A SAM checkpoint, from the hub or a directory → model and processor, or one line that says what is missing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.errors import ModelError
from segrl.segmenters.families import FAMILIES, Family
from segrl.text import first_line

if TYPE_CHECKING:
    import torch

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
        raise ModelError(f"{name_or_path} is a {kind}, no promptable segmenter; these are: {known}")
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
