"""JSON in answer tags, or bare: VisionReasoner's list of objects and Seg-Zero's one object.

json-list (VisionReasoner, arXiv 2505.12081): one entry per object

    <think>…</think><answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, …]</answer>

A point lies on its object. Also read is what plain Qwen writes: a list, or one entry, without
answer tags, in a Markdown fence or bare, the first that the text holds; entries with only a box or
only a point; further keys, such as "label". `[]` says "nothing there".

seg-zero (arXiv 2503.06520): one box and two points on the object

    <think>…</think><answer>{"bbox": [10,100,200,210], "points_1": [30,110], "points_2": [35,180]}</answer>

The points are the centres of the object's two largest inscribed circles; each may be missing, and so
may the box. Also read: further keys, Python's quotes, and the object without answer tags, as Seg-Zero's
own evaluation takes the first object of the text. Several objects are a list of such JSON objects.
Seg-Zero itself cannot say that nothing is there; here `{"bbox": [], "points_1": [], "points_2": []}` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.lenient_json import Literal, read_first, read_whole
from segrl.answers.mask_prompts import (
    MAX_BOXES,
    MAX_POINTS,
    check_count,
    group,
    read_box,
    read_boxes,
    read_points,
    round_prompt,
)
from segrl.answers.reading import BadValues, Found, blocks, tag_pattern
from segrl.answers.scan import BY_FIELDS
from segrl.types import Box, Frame, MaskPrompt, Point, Status

Entry = dict[str, Literal]

_TAGS = tag_pattern("answer")
_BARE = re.compile(r"""\[\s*+[{\]]|\{\s*+["']""")
"""Where a list of objects, an empty list or an object begins."""
_OTHER = re.compile(r"[\[{]")
_T = TypeVar("_T")


def read_entries(reading: Found, body: str) -> list[Entry] | None:
    """The objects in the last `<answer>`; in a text without such tags the first that stand there, fenced or bare.

    None with the fault noted if there are none.
    """
    if "<answer>" in body or "</answer>" in body:
        return read_answer_tag(reading, body)
    found = _BARE.search(body)
    start = found.start() if found else body.find("[")
    if start < 0:
        reading.faults.append((Status.NO_ANSWER, "no <answer>…</answer> and no JSON"))
        return None
    literal = reading.attempt(read_first, body, start)
    if literal is None:
        return None
    value, end = literal
    reading.is_complete, reading.is_all = True, _OTHER.search(body, end) is None
    return reading.attempt(to_entries, value)


def read_answer_tag(reading: Found, body: str) -> list[Entry] | None:
    """The objects in the last `<answer>`, or None with the fault noted; "answer" is a part if there is just one tag."""
    contents = reading.attempt(lambda: [content for _, content in blocks(body, _TAGS)])
    reading.is_complete = bool(contents)
    if contents == []:
        reading.faults.append((Status.NO_ANSWER, "no <answer>…</answer>"))
    if not contents:
        return None
    entries = reading.attempt(lambda: to_entries(read_whole(contents[-1])))
    if entries is not None and len(contents) == 1:
        reading.parts.add("answer")
    return entries


def to_entries(value: Literal) -> list[Entry]:
    """A JSON object, or a list of them, as a list. Raises BadValues for anything else."""
    values = value if isinstance(value, list) else [value]
    check_count(len(values), MAX_BOXES, "objects")
    entries = [entry for entry in values if isinstance(entry, dict)]
    if len(entries) < len(values):
        raise BadValues("the answer is not made of JSON objects")
    return entries


def read_field(
    reading: Found, part: str, entries: Sequence[Entry], key: str, read: Callable[[Literal], _T]
) -> list[_T | None] | None:
    """`read(entry[key])` of each entry, None where it lacks the key; None with the fault noted if one is bad.

    `part` is a part if no entry lacks the key.
    """
    values = reading.attempt(lambda: [read(entry[key]) if key in entry else None for entry in entries])
    if values is not None and all(key in entry for entry in entries):
        reading.parts.add(part)
    return values


class JsonList(AnswerFormat):
    """The format named `json-list`."""

    name = "json-list"
    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS

    def prompt(self, query: str) -> str:
        """VisionReasoner's request in our words; the whole instruction is part of it."""
        return (
            f'Find every object that fits "{query.strip()}" in the image. Compare the objects you see before you '
            "choose. Write your reasoning in <think></think> and your answer in <answer></answer>, as a JSON list with "
            "the bounding box of each object and a point on it; the list is empty if nothing fits. Example:\n"
            "<think>your reasoning</think>"
            '<answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, '
            '{"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]</answer>'
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box and the first foreground point of each prompt: the format has no room for more.

        Raises ValueError for a prompt with neither.
        """
        entries = ", ".join(_render_entry(round_prompt(prompt)) for prompt in prompts)
        return f"{think_block(reasoning)}<answer>[{entries}]</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        """See AnswerFormat."""
        reading = Found()
        entries = read_entries(reading, body)
        if entries is None:
            return reading
        boxes = read_field(reading, "bbox", entries, "bbox_2d", read_box)
        points = read_field(reading, "points", entries, "point_2d", read_foreground)
        if boxes is not None and points is not None:
            reading.prompts = reading.attempt(to_prompts, boxes, points, frame) or ()
        return reading


def read_foreground(value: Literal) -> list[Point]:
    """`[x, y]`, or a list of such points with at least one. Raises BadValues."""
    is_one = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    points = read_points([value] if is_one else value)
    if not points:
        raise BadValues("an empty point")
    return points


def to_prompts(
    boxes: Sequence[Box | None], points: Sequence[list[Point] | None], frame: Frame
) -> tuple[MaskPrompt, ...]:
    """One mask prompt per entry. Raises BadValues."""
    check_count(sum(len(own or ()) for own in points), MAX_POINTS, "points")
    prompts: list[MaskPrompt] = []
    for box, own in zip(boxes, points, strict=True):
        if box is None and own is None:
            raise BadValues('an entry with neither "bbox_2d" nor "point_2d"')
        prompts += group([box] if box else (), own or (), [1] * len(own or ()), frame)
    return tuple(prompts)


def _render_entry(prompt: MaskPrompt) -> str:
    fields = [] if prompt.box_xyxy is None else [f'"bbox_2d": {number_list(prompt.box_xyxy)}']
    foreground = [xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label]
    fields += [f'"point_2d": {number_list(xy)}' for xy in foreground[:1]]
    if not fields:
        raise ValueError("json-list cannot say background points without a box")
    return f"{{{', '.join(fields)}}}"


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


LABELLED_KEYS = ("positive_points", "negative_points")


class Think2Seg(AnswerFormat):
    """The format named `think2seg`: Think2Seg-RS's JSON list, a box and points of either label per object.

        (arXiv 2512.19302)

        <think>…</think><answer>[{"bbox_2d": [310,360,567,586], "positive_points": [[434,474], [450,460]]}, …]</answer>

    Its checkpoints write two positive points an object and put the list in a Markdown fence within the answer
    tags. Also read: `negative_points`, entries with only a box or only points, and further keys. `[]` says
    "nothing there".
    """

    name = "think2seg"
    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS
    system = "You analyse pictures taken from above and say where SAM, a promptable segmenter, finds what is asked for."

    def prompt(self, query: str) -> str:
        """Think2Seg-RS's request in our words."""
        return (
            f'Find "{query.strip()}" in the image. For each object that fits give "bbox_2d", a tight bounding box, and '
            '"positive_points", two points within the object. Write your reasoning in <think></think> and the JSON '
            "list in <answer></answer>; the list is empty if nothing fits. Example:\n"
            "<think>your reasoning</think>"
            '<answer>[{"bbox_2d": [310,360,567,586], "positive_points": [[434,474], [450,460]]}, '
            '{"bbox_2d": [10,200,100,320], "positive_points": [[50,250], [90,300]]}]</answer>'
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box and all points of each prompt. Raises ValueError for a prompt with neither."""
        entries = ", ".join(_render_labelled(round_prompt(prompt)) for prompt in prompts)
        return f"{think_block(reasoning)}<answer>[{entries}]</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        """See AnswerFormat."""
        reading = Found()
        entries = read_entries(reading, body)
        if entries is None:
            return reading
        boxes = read_field(reading, "bbox", entries, "bbox_2d", read_box)
        inside = read_field(reading, "points", entries, LABELLED_KEYS[0], read_points)
        outside = read_field(reading, LABELLED_KEYS[1], entries, LABELLED_KEYS[1], read_points)
        if boxes is not None and inside is not None and outside is not None:
            reading.prompts = reading.attempt(_to_labelled_prompts, boxes, inside, outside, frame) or ()
        return reading


_LabelledPoints = Sequence[list[Point] | None]


def _to_labelled_prompts(
    boxes: Sequence[Box | None], inside: _LabelledPoints, outside: _LabelledPoints, frame: Frame
) -> tuple[MaskPrompt, ...]:
    """One mask prompt per entry. Raises BadValues."""
    check_count(sum(len(own or ()) for own in (*inside, *outside)), MAX_POINTS, "points")
    prompts = []
    for box, on, off in zip(boxes, inside, outside, strict=True):
        if box is None and not on:
            raise BadValues('an entry with neither "bbox_2d" nor "positive_points"')
        points, labels = (*(on or ()), *(off or ())), (1,) * len(on or ()) + (0,) * len(off or ())
        prompts.append(MaskPrompt(box, points, labels, frame))
    return tuple(prompts)


def _render_labelled(prompt: MaskPrompt) -> str:
    fields = [] if prompt.box_xyxy is None else [f'"bbox_2d": {number_list(prompt.box_xyxy)}']
    for key, wanted in zip(LABELLED_KEYS, (1, 0), strict=True):
        points = [xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label == wanted]
        if points:
            fields.append(f'"{key}": [{", ".join(number_list(xy) for xy in points)}]')
    if prompt.box_xyxy is None and not any(prompt.labels):
        raise ValueError("think2seg cannot say background points without a box")
    return f"{{{', '.join(fields)}}}"
