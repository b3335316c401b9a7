"""Every coordinate frame and every conversion between them.

One linear rule covers all frames: a frame is a rectangle of a known size laid over the whole
image, and `x_to = x_from · width_to / width_from`. Nothing here rounds; the one rounding rule is
`to_lattice`, which a renderer uses before it writes integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from segrl.errors import FrameError
from segrl.types import ORIGINAL, Answer, Box, Frame, FrameKind, MaskPrompt, Point, Status

if TYPE_CHECKING:
    import numpy as np


def frame_size_wh(frame: Frame, image_wh: tuple[int, int]) -> tuple[float, float]:
    """Width and height that `frame` gives to the whole image of `image_wh` original pixels.

    Raises FrameError for a frame that is not known.
    """
    if frame.kind is FrameKind.ORIGINAL:
        return image_wh
    if frame.kind is FrameKind.RELATIVE_1000:
        return (1000, 1000)
    if frame.kind is FrameKind.RESIZED and frame.size_wh is not None:
        return frame.size_wh
    raise FrameError("these coordinates have no frame: pass that of the policy (frame=…)")


def convert(prompt: MaskPrompt, to: Frame, image_wh: tuple[int, int]) -> MaskPrompt:
    """The same mask prompt with its numbers in the frame `to`; neither rounded nor clipped."""
    if prompt.frame == to and to.kind is not FrameKind.UNKNOWN:
        return prompt
    w_from, h_from = frame_size_wh(prompt.frame, image_wh)
    w_to, h_to = frame_size_wh(to, image_wh)
    sx, sy = w_to / w_from, h_to / h_from
    return replace(mapped(prompt, lambda x, y: (x * sx, y * sy)), frame=to)


def mapped(prompt: MaskPrompt, move: Callable[[float, float], Point]) -> MaskPrompt:
    """The prompt with every point and every corner of a box where `move` puts it."""

    def moved(box: Box) -> Box:
        return (*move(box[0], box[1]), *move(box[2], box[3]))

    return replace(
        prompt,
        box_xyxy=None if prompt.box_xyxy is None else moved(prompt.box_xyxy),
        points_xy=tuple(move(x, y) for x, y in prompt.points_xy),
        exemplars_xyxy=tuple(map(moved, prompt.exemplars_xyxy)),
    )


def clip_box(box: Box, image_wh: tuple[int, int]) -> Box | None:
    """`box` (original pixels, exclusive maximum) cut to the image; None if nothing is left."""
    w, h = image_wh
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[2], float(w)), min(box[3], float(h))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def clip_point(point: Point, image_wh: tuple[int, int]) -> Point:
    """`point` (original pixels) moved onto the nearest pixel of the image: x in [0, w-1], y in [0, h-1]."""
    w, h = image_wh
    return (min(max(point[0], 0.0), w - 1.0), min(max(point[1], 0.0), h - 1.0))


def lies_outside(prompt: MaskPrompt, image_wh: tuple[int, int], tolerance: float = 0.02) -> bool:
    """Whether a number of `prompt` lies beyond the image by more than `tolerance`, a share of the side."""
    width, height = frame_size_wh(prompt.frame, image_wh)
    shares = [share for x, y in _places(prompt) for share in (x / width, y / height)]
    return any(share < -tolerance or share > 1 + tolerance for share in shares)


def frame_hint(answer: Answer | None, image_wh: tuple[int, int]) -> str:
    """One line on numbers that look as if they were in another frame, with the option that would mend it; or "".

    answer: as the policy wrote it (`Segmentation.written`). Noticed are shares of the sides (0 to 1) in a frame of
    more, and numbers beyond the frame.
    """
    if answer is None or not answer.prompts:
        return ""
    prompts = [prompt for prompt in answer.prompts if prompt.frame == answer.prompts[0].frame]
    frame_wh = frame_size_wh(prompts[0].frame, image_wh)
    places = [place for prompt in prompts for place in _places(prompt)]
    if not places:
        return ""
    largest = max(value for place in places for value in place)
    named = f"{frame_wh[0]:g}×{frame_wh[1]:g}"
    if are_shares(prompts, image_wh):
        return f'all numbers lie between 0 and 1 in a frame of {named}: if they are shares, frame="relative_1"'
    if not any(lies_outside(prompt, image_wh) for prompt in prompts):
        return ""
    fits = [
        name
        for name, (width, height) in (("original", image_wh), ("relative_1000", (1000, 1000)))
        if (width, height) != frame_wh and all(x <= width and y <= height for x, y in places)
    ]
    advice = f'they would fit frame="{fits[0]}"' if fits else "say which frame the policy writes with frame="
    return f"numbers up to {largest:g} lie beyond the frame of {named}: {advice}"


def are_shares(prompts: Sequence[MaskPrompt], image_wh: tuple[int, int]) -> bool:
    """Whether every number lies in 0–1 although the frame's sides are longer: shares of the sides, it seems."""
    values = [value for prompt in prompts for place in _places(prompt) for value in place]
    within = bool(values) and all(0 <= value <= 1 for value in values)
    return within and min(frame_size_wh(prompts[0].frame, image_wh)) > 2


def _places(prompt: MaskPrompt) -> list[Point]:
    """The corners of the boxes and the points."""
    return [*(corner for box in prompt.boxes for corner in (box[:2], box[2:])), *prompt.points_xy]


def box_iou(one: Box, other: Box) -> float:
    """IoU of two boxes of one frame, exclusive maximum: 1 for equal boxes, 0 for boxes that share no area.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    import numpy as np

    return float(box_ious(np.array(one, dtype=float), np.array(other, dtype=float)))


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`box_iou` of boxes `(…, 4)` with others, float64, the two broadcast against each other.

    Row by row for `(N, 4)` and `(N, 4)`; `(M, N)` for `(M, 1, 4)` and `(N, 4)`. At least one of two boxes has an area.
    """
    import numpy as np

    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(side[..., 2:] - side[..., :2]).prod(axis=-1) for side in (boxes, others)]
    return np.asarray(overlap / (areas[0] + areas[1] - overlap))


def to_original(answer: Answer, image_wh: tuple[int, int]) -> Answer:
    """The answer in original pixels, clipped to the image; BAD_VALUES if a box is empty then.

    The only conversion between what a policy writes and what a segmenter takes. An answer without
    prompts comes back as it is. Raises FrameError for a frame that is not known.
    """
    if answer.status is not Status.OK:
        return answer
    prompts = []
    for prompt in answer.prompts:
        pixel = _to_pixels(prompt, image_wh)
        if pixel is None:
            return replace(answer, status=Status.BAD_VALUES, prompts=(), detail=_is_outside(prompt, image_wh))
        prompts.append(pixel)
    return replace(answer, prompts=tuple(prompts))


def without_outside(answer: Answer, image_wh: tuple[int, int]) -> Answer:
    """The answer without the mask prompts whose box holds no pixel of the image, each told in `repairs`.

    As it is if all of them lie outside: `to_original` then says so. Raises FrameError for a frame that is not known.
    """
    outside = [prompt for prompt in answer.prompts if _to_pixels(prompt, image_wh) is None]
    if not outside or len(outside) == len(answer.prompts):
        return answer
    kept = tuple(prompt for prompt in answer.prompts if _to_pixels(prompt, image_wh) is not None)
    notes = [f"left out: {_is_outside(prompt, image_wh)}" for prompt in outside]
    return replace(answer, prompts=kept, repairs=(*answer.repairs, *notes))


def _to_pixels(prompt: MaskPrompt, image_wh: tuple[int, int]) -> MaskPrompt | None:
    """`prompt` in original pixels, clipped to the image; None if one of its boxes is empty then."""
    pixel = _convert_finite(prompt, image_wh)
    boxes = [] if pixel is None else [clip_box(box, image_wh) for box in pixel.boxes]
    if pixel is None or None in boxes:
        return None
    inside = [box for box in boxes if box is not None]
    return replace(
        pixel,
        box_xyxy=inside.pop(0) if pixel.box_xyxy is not None else None,
        points_xy=tuple(clip_point(point, image_wh) for point in pixel.points_xy),
        exemplars_xyxy=tuple(inside),
    )


def _is_outside(prompt: MaskPrompt, image_wh: tuple[int, int]) -> str:
    box = next((box for box in prompt.boxes if _misses(replace(prompt, box_xyxy=box), image_wh)), prompt.box_xyxy)
    return f"the box {_show(box)} holds no pixel of the image ({image_wh[0]}×{image_wh[1]})"


def _misses(prompt: MaskPrompt, image_wh: tuple[int, int]) -> bool:
    pixel = _convert_finite(prompt, image_wh)
    return pixel is None or pixel.box_xyxy is None or clip_box(pixel.box_xyxy, image_wh) is None


def _convert_finite(prompt: MaskPrompt, image_wh: tuple[int, int]) -> MaskPrompt | None:
    """`convert` to original pixels, or None where the numbers overflow or the box collapses on the way."""
    frame_size_wh(prompt.frame, image_wh)  # an unknown frame is our own fault: it raises FrameError
    try:
        return convert(prompt, ORIGINAL, image_wh)
    except ValueError:
        return None


def _show(box: Box | None) -> str:
    return "(none)" if box is None else "[" + ", ".join(f"{v:g}" for v in box) + "]"


def to_lattice(value: float) -> int:
    """The one rounding rule: the nearest integer, halves up (so that 0.5 → 1 and 1.5 → 2)."""
    return math.floor(value + 0.5)


def smart_resize(image_hw: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) to which a Qwen-VL processor resizes an image of `image_hw`.

    Each side becomes a multiple of `factor` (patch size × merge size: 28 for Qwen2-VL and
    Qwen2.5-VL, 32 for Qwen3-VL), the area lies in [min_pixels, max_pixels] as far as that allows,
    and the aspect ratio is kept as nearly as possible. Equal to `smart_resize` of transformers'
    Qwen2-VL image processor, whose rounding is Python's (halves to even).
    Raises FrameError if one side is more than 200 times the other, as that processor does.
    """
    height, width = image_hw
    if max(height, width) > 200 * min(height, width):
        raise FrameError(f"an image of {width}×{height} is too narrow: one side is over 200 times the other")
    h, w = (round(side / factor) * factor for side in image_hw)  # 0 for a thin side: the area then grows below
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h, w = (max(factor, math.floor(side / shrink / factor) * factor) for side in image_hw)
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(side * grow / factor) * factor for side in image_hw)
    return h, w
