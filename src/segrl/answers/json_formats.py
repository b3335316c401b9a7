"""Answer formats of JSON objects with named fields, in answer tags or bare.

    json-list   [{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, …]            VisionReasoner, arXiv 2505.12081
    seg-zero    {"bbox": [10,100,200,210], "points_1": [30,110], "points_2": [35,180]}  Seg-Zero, arXiv 2503.06520
    sam-r1      {"bbox": [248,218,395,300], "points": [[360,237,1],[268,262,1]]}    SAM-R1, arXiv 2505.22596
    think2seg   [{"bbox_2d": [310,360,567,586], "positive_points": [[434,474], [450,460]]}, …]
                                                                                    Think2Seg-RS, arXiv 2512.19302

each in `<think>…</think><answer>…</answer>`. Without answer tags the first list or object of the text is read, fenced
or bare (not in sam-r1). Further keys, such as "label", are ignored.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.lenient_json import Literal, read_first, read_whole
from segrl.answers.mask_prompts import (
    MAX_BOXES,
    MAX_POINTS,
    check_count,
    group,
    read_box,
    read_boxes,
    read_labelled_points,
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


class Field(NamedTuple):
    """A field of the objects. part: of `Answer.parts`, there if no object lacks the field, if any. read: its value."""

    part: str | None
    key: str
    read: Callable[[Literal], Any]


class JsonFormat(AnswerFormat):
    """What these formats share. fields: their values make the mask prompts. nothing: what says "nothing there".

    lead: what stands between the reasoning and the answer. joint_parts: those that do not count where the fields are
    valid each by itself, but not together.
    """

    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS
    fields: ClassVar[tuple[Field, ...]]
    nothing: ClassVar[str] = "[]"
    lead: ClassVar[str] = ""
    joint_parts: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def render_entry(self, prompt: MaskPrompt) -> str:
        """The JSON object for a rounded prompt. Raises ValueError for one that the format cannot say."""

    @abstractmethod
    def to_prompts(self, *columns: Any, frame: Frame) -> Iterable[MaskPrompt]:
        """The mask prompts of all objects. columns: of each field its value in each object, None without the key.

        Raises BadValues.
        """

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """See AnswerFormat. A point for which the format has no room is left out."""
        objects = [self.render_entry(round_prompt(prompt)) for prompt in prompts]
        is_list = len(objects) > 1 or (objects and self.nothing == "[]")
        answer = f"[{', '.join(objects)}]" if is_list else (objects or [self.nothing])[0]
        return f"{think_block(reasoning)}{self.lead}<answer>{answer}</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        found = Found()
        entries = self.entries(found, body)
        if entries is None:
            return found
        columns = [_column(found, entries, field) for field in self.fields]
        if None not in columns:
            prompts = found.attempt(lambda: tuple(self.to_prompts(*columns, frame=frame)))
            found.prompts, found.parts = prompts or (), found.parts - (self.joint_parts if prompts is None else set())
        return found

    def entries(self, found: Found, body: str) -> list[Entry] | None:
        """The objects in the last `<answer>`; without such tags the first in the text. None with the fault noted."""
        if "<answer>" in body or "</answer>" in body:
            return tagged_entries(found, body)
        start = match.start() if (match := _BARE.search(body)) else body.find("[")
        if start < 0:
            found.faults.append((Status.NO_ANSWER, "no <answer>…</answer> and no JSON"))
            return None
        literal = found.attempt(read_first, body, start)
        if literal is None:
            return None
        value, end = literal
        found.is_complete, found.is_all = True, _OTHER.search(body, end) is None
        return found.attempt(_to_entries, value)


def tagged_entries(found: Found, body: str) -> list[Entry] | None:
    """The objects in the last `<answer>`, or None with the fault noted; "answer" is a part if there is just one tag."""
    contents = found.attempt(lambda: [content for _, content in blocks(body, _TAGS)])
    found.is_complete = bool(contents)
    if contents == []:
        found.faults.append((Status.NO_ANSWER, "no <answer>…</answer>"))
    if not contents:
        return None
    entries = found.attempt(lambda: _to_entries(read_whole(contents[-1])))
    if entries is not None and len(contents) == 1:
        found.parts.add("answer")
    return entries


def _to_entries(value: Literal) -> list[Entry]:
    """A JSON object, or a list of them, as a list. Raises BadValues for anything else."""
    values = value if isinstance(value, list) else [value]
    check_count(len(values), MAX_BOXES, "objects")
    entries = [entry for entry in values if isinstance(entry, dict)]
    if len(entries) < len(values):
        raise BadValues("the answer is not made of JSON objects")
    return entries


def _column(found: Found, entries: Sequence[Entry], field: Field) -> list[Any] | None:
    """The field's value in each object, None where it lacks the key; None with the fault noted if one is bad."""
    key = field.key
    values = found.attempt(lambda: [field.read(entry[key]) if key in entry else None for entry in entries])
    if values is not None and field.part is not None and all(key in entry for entry in entries):
        found.parts.add(field.part)
    return values


def read_foreground(value: Literal) -> list[Point]:
    """`[x, y]`, or a list of such points with at least one. Raises BadValues."""
    is_one = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    points = read_points([value] if is_one else value)
    if not points:
        raise BadValues("an empty point")
    return points


def points_of(prompt: MaskPrompt, label: int) -> list[Point]:
    """The points of a prompt that have this label."""
    return [xy for xy, one in zip(prompt.points_xy, prompt.labels, strict=True) if one == label]


def _render_object(name: str, prompt: MaskPrompt, box_key: str, points: Sequence[str]) -> str:
    """A JSON object. points: its other fields. Raises ValueError if there is no field."""
    box = [] if prompt.box_xyxy is None else [f'"{box_key}": {number_list(prompt.box_xyxy)}']
    if not box and not points:
        raise ValueError(f"{name} cannot say background points without a box")
    return f"{{{', '.join([*box, *points])}}}"


class JsonList(JsonFormat):
    """The format named `json-list`. A point lies on its object; an entry may have only a box or only a point."""

    name = "json-list"
    fields = (Field("bbox", "bbox_2d", read_box), Field("points", "point_2d", read_foreground))

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

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The box and the first foreground point."""
        point = [f'"point_2d": {number_list(xy)}' for xy in points_of(prompt, 1)[:1]]
        return _render_object(self.name, prompt, "bbox_2d", point)

    def to_prompts(self, *columns: Any, frame: Frame) -> Iterable[MaskPrompt]:
        """One mask prompt per entry. Raises BadValues."""
        boxes, points = columns
        check_count(sum(len(own or ()) for own in points), MAX_POINTS, "points")
        for box, own in zip(boxes, points, strict=True):
            if box is None and own is None:
                raise BadValues('an entry with neither "bbox_2d" nor "point_2d"')
            yield from group([box] if box else (), own or (), [1] * len(own or ()), frame)


def _read_one_box(value: Literal) -> list[Box]:
    """One box, or `[]`. Raises BadValues."""
    boxes = read_boxes(value)
    if len(boxes) > 1:
        raise BadValues(f"{len(boxes)} boxes in one object: several objects are a list of JSON objects")
    return boxes


def _read_one_point(value: Literal) -> list[Point]:
    """`[x, y]`, or `[]`. Raises BadValues."""
    return read_points([value]) if value != [] else []


class SegZero(JsonFormat):
    """The format named `seg-zero`.

    The points are the centres of the object's two largest inscribed circles; each may be missing, and so may the
    box. Several objects are a list. Seg-Zero itself cannot say that nothing is there; here three empty lists do.
    """

    name = "seg-zero"
    fields = (
        Field("bbox", "bbox", _read_one_box),
        Field("points_1", "points_1", _read_one_point),
        Field("points_2", "points_2", _read_one_point),
    )
    nothing = '{"bbox": [], "points_1": [], "points_2": []}'

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

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The box and the first two foreground points."""
        keyed = zip(("points_1", "points_2"), points_of(prompt, 1), strict=False)
        return _render_object(self.name, prompt, "bbox", [f'"{key}": {number_list(xy)}' for key, xy in keyed])

    def read(self, body: str, frame: Frame) -> Found:
        found, both = super().read(body, frame), {"points_1", "points_2"}
        found.parts = found.parts - both | ({"points"} if both <= found.parts else set())
        return found

    def to_prompts(self, *columns: Any, frame: Frame) -> Iterable[MaskPrompt]:
        """One mask prompt per object. Raises BadValues."""
        rows = list(zip(*columns, strict=True))
        if rows == [([], [], [])]:
            return
        for boxes, first, second in rows:
            points = (*(first or ()), *(second or ()))
            if not boxes and (boxes is not None or not points):
                raise BadValues(f"an object without a box; only {self.nothing} alone says that nothing is there")
            yield MaskPrompt(boxes[0] if boxes else None, points, (1,) * len(points), frame)
        if not rows:
            raise BadValues(f"no object; {self.nothing} says that nothing is there")


class SamR1(JsonFormat):
    """The format named `sam-r1`.

    The third number of a point is 1 on the target, 0 beside it inside the box. Several objects are a list, each with
    its own points, or a list of boxes in one. A box alone is an answer, and so are points alone.
    """

    name = "sam-r1"
    fields = (Field("bbox", "bbox", read_boxes), Field("points", "points", read_labelled_points))
    nothing = '{"bbox": [], "points": []}'
    joint_parts = frozenset({"bbox", "points"})
    lead = " To generate the mask of the target object, "

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

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The box, if there is one, and all points."""
        points = ",".join(number_list((*xy, label)) for xy, label in zip(prompt.points_xy, prompt.labels, strict=True))
        return _render_object(self.name, prompt, "bbox", [f'"points": [{points}]'])

    def entries(self, found: Found, body: str) -> list[Entry] | None:
        """Those in answer tags alone."""
        return tagged_entries(found, body)

    def to_prompts(self, *columns: Any, frame: Frame) -> Iterable[MaskPrompt]:
        """The mask prompts of all objects. Raises BadValues."""
        boxes, points = columns
        if (boxes, points) == ([[]], [([], [])]):
            return
        check_count(sum(len(own or ()) for own in boxes), MAX_BOXES, "boxes")
        check_count(sum(len(own[0]) for own in points if own), MAX_POINTS, "points")
        for own_boxes, own_points in zip(boxes, points, strict=True):
            xy, labels = own_points or ([], [])
            if own_boxes == [] or not (own_boxes or xy):
                raise BadValues(f"an object without a box; only {self.nothing} alone says that nothing is there")
            yield from group(own_boxes or (), xy, labels, frame)
        if not boxes:
            raise BadValues(f"no object; {self.nothing} says that nothing is there")


class Think2Seg(JsonFormat):
    """The format named `think2seg`: Think2Seg-RS's JSON list, a box and points of either label per object.

    Its checkpoints write two positive points an object and put the list in a Markdown fence within the answer
    tags. Also read: `negative_points`, and entries with only a box or only points.
    """

    name = "think2seg"
    fields = (
        Field("bbox", "bbox_2d", read_box),
        Field("points", "positive_points", read_points),
        Field(None, "negative_points", read_points),
    )
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

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The box and all points; background points only beside a box or others."""
        of_label = {"positive_points": points_of(prompt, 1), "negative_points": points_of(prompt, 0)}
        if prompt.box_xyxy is None and not of_label["positive_points"]:
            of_label = {}
        lists = {key: ", ".join(number_list(xy) for xy in points) for key, points in of_label.items() if points}
        return _render_object(self.name, prompt, "bbox_2d", [f'"{key}": [{text}]' for key, text in lists.items()])

    def to_prompts(self, *columns: Any, frame: Frame) -> Iterable[MaskPrompt]:
        """One mask prompt per entry. Raises BadValues."""
        boxes, inside, outside = columns
        check_count(sum(len(own or ()) for own in (*inside, *outside)), MAX_POINTS, "points")
        for box, on, off in zip(boxes, inside, outside, strict=True):
            if box is None and not on:
                raise BadValues('an entry with neither "bbox_2d" nor "positive_points"')
            points, labels = (*(on or ()), *(off or ())), (1,) * len(on or ()) + (0,) * len(off or ())
            yield MaskPrompt(box, points, labels, frame)
