"""In which frame a policy writes its numbers: by model family, unless its settings say otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segrl.coordinates import smart_resize
from segrl.errors import ModelError
from segrl.policies.settings import FRAME_NAMES, PolicySettings
from segrl.types import ORIGINAL, RELATIVE_1000, Frame

FAMILY_FRAMES: Mapping[str, str] = {
    "qwen2_vl": "relative_1000",
    "qwen2_5_vl": "smart_resize",
    "qwen3_vl": "relative_1000",
    "qwen3_vl_moe": "relative_1000",
    "qwen3_5": "relative_1000",
    "qwen3_5_moe": "relative_1000",
    "internvl": "relative_1000",
    "molmo": "relative_1000",
    "gemini": "relative_1000",
}
"""`model_type` of a checkpoint's configuration → the frame its numbers are in (docs/conventions.md)."""

FrameRule = Callable[[tuple[int, int]], Frame]


def check_family(family: str) -> None:
    """Raises ModelError for a family that is not in the table."""
    if family not in FAMILY_FRAMES:
        raise ModelError(f"unknown family {family!r}: choose one of {', '.join(FAMILY_FRAMES)}, or pass frame=")


@dataclass(frozen=True)
class SmartResize:
    """The numbers by which a Qwen-VL image processor chooses a size; `factor` = patch size × merge size."""

    factor: int
    min_pixels: int
    max_pixels: int

    @classmethod
    def of(cls, processor: Any) -> SmartResize | None:
        """Those of a checkpoint's own processor; None if its image processor does not work that way."""
        images = getattr(processor, "image_processor", processor)
        patch, merge = getattr(images, "patch_size", None), getattr(images, "merge_size", None)
        low = _size_entry(images, "shortest_edge", "min_pixels")
        high = _size_entry(images, "longest_edge", "max_pixels")
        if not (isinstance(patch, int) and isinstance(merge, int) and low and high):
            return None
        return cls(patch * merge, low, high)

    def size_wh(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """(width, height) to which the processor resizes an image of `image_wh`."""
        height, width = smart_resize(
            (image_wh[1], image_wh[0]), factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )
        return width, height


def _size_entry(image_processor: Any, key: str, attribute: str) -> int | None:
    """A limit from the processor's `size`, or from the attribute that older processors keep it in."""
    size = getattr(image_processor, "size", None)
    value = getattr(size, key, None)
    if value is None and isinstance(size, Mapping):
        value = size.get(key)
    return value if value is not None else getattr(image_processor, attribute, None)


def frame_name(model_type: str, settings: PolicySettings) -> str:
    """One of FRAME_NAMES: what the settings say, else what the family writes.

    Raises ModelError for a family that is not in the table and has no frame in its settings.
    """
    name = settings.frame or FAMILY_FRAMES.get(model_type)
    if name is None:
        raise ModelError(
            f"the coordinate frame of a {model_type!r} model is not known: "
            f"pass frame= (one of {', '.join(FRAME_NAMES)}) or write it into segrl.json beside the weights"
        )
    return name


def frame_rule(model_type: str, settings: PolicySettings, resize: SmartResize | None = None) -> FrameRule:
    """The function from an original image's (width, height) to the frame of the policy's numbers.

    `settings.frame` comes first, then the table by family. `resize` is needed for `smart_resize`
    only, which then sees the image as squashed to `settings.input_wh` if that is set.
    Raises ModelError as `frame_name` does, and for `smart_resize` without `resize`.
    """
    name = frame_name(model_type, settings)
    if name == "relative_1000":
        return lambda image_wh: RELATIVE_1000
    if name == "relative_1":
        return lambda image_wh: Frame.resized(1, 1)
    if name == "original":
        return lambda image_wh: ORIGINAL
    input_wh = settings.input_wh
    if name == "resized":
        assert input_wh is not None  # PolicySettings refuses it otherwise
        return lambda image_wh: Frame.resized(*input_wh)
    if resize is None:
        raise ModelError("frame 'smart_resize' needs a Qwen-VL image processor (patch and merge size, pixel limits)")
    return lambda image_wh: Frame.resized(*resize.size_wh(input_wh or image_wh))


FAMILY_RESIZE: Mapping[str, SmartResize] = {
    "qwen2_vl": SmartResize(28, 56 * 56, 28 * 28 * 16384),
    "qwen2_5_vl": SmartResize(28, 56 * 56, 28 * 28 * 16384),
    "qwen3_vl": SmartResize(32, 256 * 256, 4096 * 4096),
    "qwen3_5": SmartResize(32, 256 * 256, 4096 * 4096),
}
"""How each family's published processors size an image, for where the checkpoint's own cannot be asked."""

_NAMES: Mapping[str, re.Pattern[str]] = {
    "qwen2_5_vl": re.compile(r"qwen[-_]?2[._]5[-_]?vl", re.IGNORECASE),
    "qwen2_vl": re.compile(r"qwen[-_]?2[-_]?vl", re.IGNORECASE),
    "qwen3_vl": re.compile(r"qwen[-_]?3[-_]?vl", re.IGNORECASE),
    "qwen3_5": re.compile(r"qwen[-_]?3[._]5", re.IGNORECASE),
    "internvl": re.compile(r"internvl", re.IGNORECASE),
    "molmo": re.compile(r"molmo(?!2|point)", re.IGNORECASE),
    "gemini": re.compile(r"gemini", re.IGNORECASE),
}


def family_of(name: str) -> str:
    """The `model_type` that a model's name says, or "" if it says none.

    >>> family_of("Qwen/Qwen2.5-VL-7B-Instruct"), family_of("my-model")
    ('qwen2_5_vl', '')
    """
    return next((family for family, pattern in _NAMES.items() if pattern.search(name)), "")
