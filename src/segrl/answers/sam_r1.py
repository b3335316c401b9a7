"""SAM-R1's answer: JSON with a box and labelled points (arXiv 2505.22596).

    <think>…</think> To generate the mask of the target object, <answer>{"bbox": [248,218,395,300],
    "points": [[360,237,1],[268,262,1]]}</answer>

The third number of a point is 1 on the target, 0 beside it inside the box. Several objects are a
list of such JSON objects, each with its own points, or a list of boxes in one. A box alone is an
answer, and so are points alone. `{"bbox": [], "points": []}` says "nothing there".
"""

from __future__ import annotations

from collections.abc import Sequence

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.json_list import read_answer_tag, read_field
from segrl.answers.mask_prompts import (
    MAX_BOXES,
    MAX_POINTS,
    check_count,
    group,
    read_boxes,
    read_labelled_points,
    round_prompt,
)
from segrl.answers.reading import BadValues, Found
from segrl.answers.scan import BY_FIELDS
from segrl.types import Box, Frame, MaskPrompt, Point

_Boxes = Sequence[list[Box] | None]
_Points = Sequence[tuple[list[Point], list[int]] | None]
_NOTHING = '{"bbox": [], "points": []}'


class SamR1(AnswerFormat):
    """The format named `sam-r1`."""

    name = "sam-r1"
    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS

    def prompt(self, query: str) -> str:
        """SAM-R1's request in our words; the whole instruction is part of it."""
        return (
            f'Find the bounding box of "{query.strip()}" in the image, and points inside the box. Compare the objects '
            "you see and choose the one that fits best. Write your reasoning in <think></think> and your answer in "
            "<answer></answer>, as JSON. Each point is [x, y, value]: value 1 lies on the target, value 0 lies inside "
            "the box but not on the target. If nothing fits, leave both lists empty. Example:\n"
            "<think>your reasoning</think> To generate the mask of the target object, "
            '<answer>{"bbox": [10,100,200,210], "points": [[30,110,1],[180,120,0]]}</answer>'
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """One JSON object, or a list of them for several prompts; "bbox" is left out where a prompt has no box."""
        objects = [_render_object(round_prompt(prompt)) for prompt in prompts]
        answer = f"[{', '.join(objects)}]" if len(objects) > 1 else (objects or [_NOTHING])[0]
        return f"{think_block(reasoning)} To generate the mask of the target object, <answer>{answer}</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        """See AnswerFormat."""
        reading = Found()
        objects = read_answer_tag(reading, body)
        if objects is None:
            return reading
        boxes = read_field(reading, "bbox", objects, "bbox", read_boxes)
        points = read_field(reading, "points", objects, "points", read_labelled_points)
        if boxes is not None and points is not None and not _is_nothing(boxes, points):
            reading.prompts = reading.attempt(_to_prompts, boxes, points, frame) or ()
            if reading.faults:
                reading.parts -= {"bbox", "points"}
        return reading


def _is_nothing(boxes: _Boxes, points: _Points) -> bool:
    return list(boxes) == [[]] and list(points) == [([], [])]


def _to_prompts(boxes: _Boxes, points: _Points, frame: Frame) -> tuple[MaskPrompt, ...]:
    """The mask prompts of all objects. Raises BadValues."""
    check_count(sum(len(own or ()) for own in boxes), MAX_BOXES, "boxes")
    check_count(sum(len(own[0]) for own in points if own), MAX_POINTS, "points")
    prompts: list[MaskPrompt] = []
    for own_boxes, own_points in zip(boxes, points, strict=True):
        xy, labels = own_points or ([], [])
        if own_boxes == [] or not (own_boxes or xy):
            raise BadValues(f"an object without a box; only {_NOTHING} alone says that nothing is there")
        prompts += group(own_boxes or (), xy, labels, frame)
    if not prompts:
        raise BadValues(f"no object; {_NOTHING} says that nothing is there")
    return tuple(prompts)


def _render_object(prompt: MaskPrompt) -> str:
    box = "" if prompt.box_xyxy is None else f'"bbox": {number_list(prompt.box_xyxy)}, '
    points = ",".join(number_list((*xy, label)) for xy, label in zip(prompt.points_xy, prompt.labels, strict=True))
    return f'{{{box}"points": [{points}]}}'
