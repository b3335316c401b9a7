"""In which frame a policy writes its numbers: by model family, unless its settings say otherwise."""

from __future__ import annotations

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
}
"""`model_type` of a checkpoint's configuration → the frame its numbers are in (docs/conventions.md)."""

FrameRule = Callable[[tuple[int, int]], Frame]


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


def frame_rule(model_type: str, settings: PolicySettings, resize: SmartResize | None = None) -> FrameRule:
    """The function from an original image's (width, height) to the frame of the policy's numbers.

    `settings.frame` comes first, then the table by family. `resize` is needed for `smart_resize`
    only, which then sees the image as squashed to `settings.input_wh` if that is set.
    Raises ModelError for a family that is not in the table and has no frame in its settings.
    """
    name = settings.frame or FAMILY_FRAMES.get(model_type)
    if name is None:
        raise ModelError(
            f"nobody has told segrl what the numbers of a {model_type!r} model mean: "
            f"pass frame= (one of {', '.join(FRAME_NAMES)}) or write it into segrl.json beside the weights"
        )
    if name == "relative_1000":
        return lambda image_wh: RELATIVE_1000
    if name == "original":
        return lambda image_wh: ORIGINAL
    input_wh = settings.input_wh
    if name == "resized":
        assert input_wh is not None  # PolicySettings refuses it otherwise
        return lambda image_wh: Frame.resized(*input_wh)
    if resize is None:
        raise ModelError("frame 'smart_resize' needs a Qwen-VL image processor (patch and merge size, pixel limits)")
    return lambda image_wh: Frame.resized(*resize.size_wh(input_wh or image_wh))
