"""Seg-Zero's answer: JSON with one box and two points on the object (arXiv 2503.06520).

    <think>…</think><answer>{"bbox": [10,100,200,210], "points_1": [30,110], "points_2": [35,180]}</answer>

The points are the centres of the object's two largest inscribed circles, both on the target; each may
be missing, and so may the box. Also read: further keys, Python's quotes, and the object without answer
tags, in a Markdown fence or bare, as Seg-Zero's own evaluation takes the first object of the text.
Several objects are a list of such JSON objects, each with its own points. Seg-Zero itself cannot say
that nothing is there; here `{"bbox": [], "points_1": [], "points_2": []}` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.json_answer import Entry, read_entries, read_field
from segrl.answers.lenient_json import Literal
from segrl.answers.prompts import read_boxes, read_points, round_prompt
from segrl.answers.reading import BadValues, Found
from segrl.answers.scan import BY_FIELDS
from segrl.types import Box, Frame, MaskPrompt, Point

POINT_KEYS = ("points_1", "points_2")
_NOTHING = '{"bbox": [], "points_1": [], "points_2": []}'
_Points = Sequence[list[Point] | None]


class SegZero(AnswerFormat):
    """The format named `seg-zero`."""

    name = "seg-zero"
    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS

    def prompt(self, query: str) -> str:
        """Seg-Zero's request in our words; the whole instruction is part of it."""
        return (
            f'Find "{query.strip()}" in the image. Compare the objects you see and choose the one that fits best. '
            "Write your reasoning in <think></think> and your answer in <answer></answer>, as JSON with the object's "
            "bounding box and the centres of the two largest circles that fit inside the object. If nothing fits, "
            "leave all three lists empty. Example:\n"
            "<think>your reasoning</think>"
            '<answer>{"bbox": [10,100,200,210], "points_1": [30,110], "points_2": [35,180]}</answer>'
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box and the first two foreground points of each prompt: the format has no room for more.

        Raises ValueError for a prompt with neither.
        """
        objects = [_render_object(round_prompt(prompt)) for prompt in prompts]
        answer = f"[{', '.join(objects)}]" if len(objects) > 1 else (objects or [_NOTHING])[0]
        return f"{think_block(reasoning)}<answer>{answer}</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        """See AnswerFormat."""
        reading = Found()
        objects = read_entries(reading, body)
        if objects is None:
            return reading
        boxes = read_field(reading, "bbox", objects, "bbox", _read_box)
        points = [read_field(reading, key, objects, key, _read_point) for key in POINT_KEYS]
        if set(POINT_KEYS) <= reading.parts:
            reading.parts.add("points")
        reading.parts -= set(POINT_KEYS)
        first, second = points
        if boxes is not None and first is not None and second is not None and not _is_nothing(objects):
            reading.prompts = reading.attempt(_to_prompts, boxes, first, second, frame) or ()
        return reading


def _read_box(value: Literal) -> list[Box]:
    """One box, or `[]`. Raises BadValues."""
    boxes = read_boxes(value)
    if len(boxes) > 1:
        raise BadValues(f"{len(boxes)} boxes in one object: several objects are a list of JSON objects")
    return boxes


def _read_point(value: Literal) -> list[Point]:
    """`[x, y]`, or `[]`. Raises BadValues."""
    return read_points([value]) if value != [] else []


def _is_nothing(objects: Sequence[Entry]) -> bool:
    keys = ("bbox", *POINT_KEYS)
    return len(objects) == 1 and all(objects[0].get(key) == [] for key in keys)


def _to_prompts(
    boxes: Sequence[list[Box] | None], first: _Points, second: _Points, frame: Frame
) -> tuple[MaskPrompt, ...]:
    """One mask prompt per object. Raises BadValues."""
    prompts = []
    for own_boxes, one, other in zip(boxes, first, second, strict=True):
        points = (*(one or ()), *(other or ()))
        if not own_boxes and (own_boxes is not None or not points):
            raise BadValues(f"an object without a box; only {_NOTHING} alone says that nothing is there")
        prompts.append(MaskPrompt(own_boxes[0] if own_boxes else None, points, (1,) * len(points), frame))
    if not prompts:
        raise BadValues(f"no object; {_NOTHING} says that nothing is there")
    return tuple(prompts)


def _render_object(prompt: MaskPrompt) -> str:
    fields = [] if prompt.box_xyxy is None else [f'"bbox": {number_list(prompt.box_xyxy)}']
    foreground = [xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label]
    fields += [f'"{key}": {number_list(xy)}' for key, xy in zip(POINT_KEYS, foreground, strict=False)]
    if not fields:
        raise ValueError("seg-zero cannot say background points without a box")
    return f"{{{', '.join(fields)}}}"
