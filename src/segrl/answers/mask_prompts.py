"""From literals to mask prompts, and mask prompts made ready to be written.

An answer has at most MAX_BOXES boxes and MAX_POINTS points; more of them are BAD_VALUES. The limits
bound the one step whose time is a product: each point is compared with at most MAX_BOXES boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import cast

from segrl.answers.lenient_json import Literal
from segrl.answers.reading import BadValues
from segrl.coordinates import to_lattice
from segrl.types import Box, Frame, MaskPrompt, Point

MAX_BOXES = 256
MAX_POINTS = 1024


def read_box(value: Literal) -> Box:
    """`[x1, y1, x2, y2]`; raises BadValues for anything else and for an inverted or empty box."""
    x1, y1, x2, y2 = _numbers(value, 4, "a box")
    if x2 <= x1 or y2 <= y1:
        raise BadValues(f"the box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] has no area: x1 < x2 and y1 < y2 must hold")
    return (x1, y1, x2, y2)


def read_boxes(value: Literal) -> list[Box]:
    """One box, a list of boxes, or `[]` for none. Raises BadValues."""
    if not isinstance(value, list):
        raise BadValues(f"a box is a list of four numbers, not {_describe(value)}")
    if value and isinstance(value[0], list):
        check_count(len(value), MAX_BOXES, "boxes")
        return [read_box(box) for box in value]
    return [read_box(value)] if value else []


def read_points(value: Literal) -> list[Point]:
    """`[[x, y], …]`, empty for none. Raises BadValues."""
    return [(x, y) for x, y in _rows(value, 2, "a point")]


def read_labelled_points(value: Literal) -> tuple[list[Point], list[int]]:
    """`[[x, y, label], …]` → points and labels. Raises BadValues."""
    rows = _rows(value, 3, "a labelled point")
    return [(x, y) for x, y, _ in rows], [_label(label) for _, _, label in rows]


def read_labels(value: Literal) -> list[int]:
    """`[1, 0, …]`, empty for none; 1.0 and 0.0 are labels too, true and false are not. Raises BadValues."""
    if not isinstance(value, list):
        raise BadValues(f"labels are a list, not {_describe(value)}")
    check_count(len(value), MAX_POINTS, "labels")
    return [_label(label) for label in value]


def check_count(count: int, limit: int, what: str) -> None:
    """Raises BadValues for more than `limit` of them."""
    if count > limit:
        raise BadValues(f"{count} {what}, more than the {limit} that an answer may have")


def _rows(value: Literal, width: int, what: str) -> list[list[float]]:
    if not isinstance(value, list):
        raise BadValues(f"points are a list of lists, not {_describe(value)}")
    check_count(len(value), MAX_POINTS, "points")
    return [_numbers(row, width, what) for row in value]


def _numbers(value: Literal, count: int, what: str) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise BadValues(f"{what} is a list of {count} numbers, not {_describe(value)}")
    for number in value:
        if type(number) is not float or not isfinite(number):
            raise BadValues(f"{what} is a list of {count} finite numbers")
    return cast("list[float]", value)


def _label(value: Literal) -> int:
    if isinstance(value, float) and value in (0.0, 1.0):
        return int(value)
    raise BadValues(f"a label is 1 or 0, not {_describe(value)}")


def _describe(value: Literal) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{value:g}" if isinstance(value, float) else f"a {type(value).__name__}"


def group(boxes: Sequence[Box], points: Sequence[Point], labels: Sequence[int], frame: Frame) -> tuple[MaskPrompt, ...]:
    """One mask prompt per box, in order, each with its points; without boxes all points are one prompt.

    A point goes to the smallest box that holds it (x1 ≤ x < x2, y1 ≤ y < y2), one outside all
    boxes to the nearest; where several are equal, to the smallest, then to the first.
    """
    if len(boxes) <= 1:
        box = boxes[0] if boxes else None
        return (MaskPrompt(box, tuple(points), tuple(labels), frame),) if boxes or points else ()
    by_area = _by_area(boxes)
    members: list[list[int]] = [[] for _ in boxes]
    for index, point in enumerate(points):
        members[_home(point, boxes, by_area)].append(index)
    return tuple(
        MaskPrompt(box, tuple(points[i] for i in own), tuple(labels[i] for i in own), frame)
        for box, own in zip(boxes, members, strict=True)
    )


def own_points(prompts: Sequence[MaskPrompt]) -> tuple[MaskPrompt, ...]:
    """The prompts without the points that `group` would give to another of them; in one frame, each with a box."""
    boxes = [prompt.box_xyxy for prompt in prompts if prompt.box_xyxy]
    if len(boxes) < len(prompts):
        raise ValueError("a prompt without a box cannot be told from others by its points")
    by_area = _by_area(boxes)
    kept = []
    for index, prompt in enumerate(prompts):
        own = [i for i, point in enumerate(prompt.points_xy) if _home(point, boxes, by_area) == index]
        points, labels = tuple(prompt.points_xy[i] for i in own), tuple(prompt.labels[i] for i in own)
        kept.append(replace(prompt, points_xy=points, labels=labels))
    return tuple(kept)


def _by_area(boxes: Sequence[Box]) -> list[int]:
    """Indices of the boxes, the smallest first, the first of equals first."""
    return sorted(range(len(boxes)), key=lambda i: (boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))


def _home(point: Point, boxes: Sequence[Box], by_area: Sequence[int]) -> int:
    """Index of the box that `point` goes to; `by_area` lists the boxes from the smallest."""
    x, y = point
    for i in by_area:
        x1, y1, x2, y2 = boxes[i]
        if x1 <= x < x2 and y1 <= y < y2:
            return i
    return min(by_area, key=lambda i: _squared_distance(x, y, boxes[i]))


def nearest_home(point: Point, prompts: Sequence[MaskPrompt]) -> int:
    """Index of the prompt that a further point belongs to: as `group` says, a prompt without a box by its points."""
    boxes = [prompt.box_xyxy or _around(prompt.points_xy) for prompt in prompts]
    return _home(point, boxes, _by_area(boxes))


def _around(points: Sequence[Point]) -> Box:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs), min(ys), max(xs), max(ys))


def _squared_distance(x: float, y: float, box: Box) -> float:
    dx = max(box[0] - x, 0.0, x - box[2])
    dy = max(box[1] - y, 0.0, y - box[3])
    return dx * dx + dy * dy


def round_prompt(prompt: MaskPrompt) -> MaskPrompt:
    """`prompt` on the integer lattice of its own frame, as the renderers write it.

    A box that rounding would empty keeps the unit that holds its middle along that side.
    """
    return replace(
        prompt,
        box_xyxy=None if prompt.box_xyxy is None else _round_box(prompt.box_xyxy),
        points_xy=tuple((to_lattice(x), to_lattice(y)) for x, y in prompt.points_xy),
        exemplars_xyxy=tuple(map(_round_box, prompt.exemplars_xyxy)),
    )


def _round_box(box: Box) -> Box:
    (x1, x2), (y1, y2) = (_round_side(*box[i::2]) for i in (0, 1))
    return (x1, y1, x2, y2)


def _round_side(low: float, high: float) -> tuple[int, int]:
    first, last = to_lattice(low), to_lattice(high)
    middle = math.floor((low + high) / 2)
    return (first, last) if first < last else (middle, middle + 1)


def default_reasoning(prompts: Sequence[MaskPrompt]) -> str:
    """A reasoning text for a cold start on data that come without one: every object and where it is.

    `prompts` in the frame that the policy writes (`coordinates.convert`): the text names each
    object's centre in the numbers of that frame, rounded as a renderer rounds, and a prompt that has no box and no
    point by its phrase.

    >>> box = MaskPrompt((0, 0, 10, 91))
    >>> default_reasoning([box, box])
    '1 at (5,46), 2 at (5,46). it is 1 and 2'
    >>> default_reasoning([MaskPrompt(phrase="red ring")])
    '1 red ring. it is 1'
    >>> default_reasoning([])
    'none match'
    """
    if not prompts:
        return "none match"
    numbers = range(1, len(prompts) + 1)
    seen = ", ".join(f"{n} {_where(prompt)}" for n, prompt in zip(numbers, prompts, strict=True))
    return f"{seen}. it is " + " and ".join(map(str, numbers))


def _where(prompt: MaskPrompt) -> str:
    boxes = (prompt.box_xyxy, *((*point, *point) for point in prompt.points_xy), *prompt.exemplars_xyxy)
    corners = next((box for box in boxes if box is not None), None)
    if corners is None:
        return f"{prompt.phrase}"
    return f"at ({to_lattice((corners[0] + corners[2]) / 2)},{to_lattice((corners[1] + corners[3]) / 2)})"
