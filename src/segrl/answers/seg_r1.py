"""Seg-R1's answer: boxes, points and labels in tags of their own (arXiv 2506.22624).

    <think>…</think> <bbox>[x1,y1,x2,y2]</bbox>, <points>[[x1,y1],…]</points>, <labels>[1,0,…]</labels>

What stands between the tags is skipped. Several boxes are several objects, in a tag each or in one.
A box alone is an answer, and so are points with labels alone. Empty lists in all three tags say
"nothing there".

points-only is the answer of Seg-R1's first stage: points with labels, no box, no reasoning. All points are one mask
prompt, and empty lists in both tags say "nothing there".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.lenient_json import read_whole
from segrl.answers.mask_prompts import (
    MAX_BOXES,
    MAX_POINTS,
    check_count,
    group,
    read_boxes,
    read_labels,
    read_points,
    round_prompt,
)
from segrl.answers.reading import BadValues, Found, blocks, tag_pattern
from segrl.answers.scan import BY_TAGS
from segrl.types import Box, Frame, MaskPrompt, Point, Status


def segment_prompt(query: str) -> str:
    """Seg-R1's text prompt: a sentence (it ends in `.`, `?` or `!`) as it stands, else
    "Identify and segment " and the expression."""
    query = query.strip()
    return query if query.endswith((".", "?", "!")) else f"Identify and segment {query}"


def find_blocks(body: str, tags: re.Pattern[str]) -> tuple[Found, dict[str, list[str]]]:
    """A reading and the contents of each tag, in order; the reading has a fault if the tags are missing or broken."""
    reading, contents = Found(), dict[str, list[str]]()
    for name, content in reading.attempt(list, blocks(body, tags)) or ():
        contents.setdefault(name, []).append(content)
    reading.is_complete = not reading.faults and "labels" in contents
    if not contents and not reading.faults:
        reading.faults.append((Status.NO_ANSWER, "no tags of the answer format"))
    return reading, contents


def read_points_into(reading: Found, contents: Mapping[str, Sequence[str]]) -> tuple[list[Point], list[int]]:
    """All points and their labels, and the two parts noted in `reading`; ([], []) if they are missing or faulty."""
    if "points" not in contents and "labels" not in contents:
        return [], []
    found = reading.attempt(_read_points, contents.get("points", ()), contents.get("labels", ()))
    if found is None:
        return [], []
    reading.parts |= {"points", "labels"}
    return found


def _read_points(points: Sequence[str], labels: Sequence[str]) -> tuple[list[Point], list[int]]:
    """The n-th labels tag belongs to the n-th points tag. Raises LiteralError and BadValues."""
    point_values, label_values = [read_whole(text) for text in points], [read_whole(text) for text in labels]
    all_points = [read_points(value) for value in point_values]
    all_labels = [read_labels(value) for value in label_values]
    if [len(block) for block in all_points] != [len(block) for block in all_labels]:
        n_points, n_labels = sum(map(len, all_points)), sum(map(len, all_labels))
        raise BadValues(f"{n_points} points with {n_labels} labels: each list of points needs one of as many labels")
    check_count(sum(map(len, all_points)), MAX_POINTS, "points")
    return [p for block in all_points for p in block], [label for block in all_labels for label in block]


def render_points(prompts: Sequence[MaskPrompt]) -> str:
    """The two tags with all points of all prompts."""
    points = ",".join(number_list(point) for prompt in prompts for point in prompt.points_xy)
    labels = number_list([label for prompt in prompts for label in prompt.labels])
    return f"<points>[{points}]</points>, <labels>{labels}</labels>"


_EMPTY_HERE_ONLY = 'an empty list, which says "nothing there" only where the lists in all three tags are empty'
_TAGS = tag_pattern("bbox", "points", "labels")
_POINT_TAGS = tag_pattern("points", "labels")


class SegR1(AnswerFormat):
    """The format named `seg-r1`."""

    name = "seg-r1"
    required_parts = frozenset({"think", "bbox", "points", "labels"})
    scans = BY_TAGS
    system = (
        "You point at things in images for a segmentation model. First think about what the request means and "
        "where it is, inside <think></think>. Then give each object's bounding box as <bbox>[x1,y1,x2,y2]</bbox>, "
        "points as <points>[[x1,y1],[x2,y2]]</points> and a label for each point as <labels>[1,0]</labels>: 1 for a "
        "point on an object, 0 for one on the background. Coordinates are whole numbers. If nothing in the image "
        "matches, leave the lists in all three tags empty."
    )

    def prompt(self, query: str) -> str:
        """Seg-R1's wording: an expression after "Identify and segment ", a whole sentence as it stands."""
        return segment_prompt(query)

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """Boxes first, then the points of all prompts; the bbox tag is left out if only points are given."""
        rounded = [round_prompt(prompt) for prompt in prompts]
        boxes = [number_list(p.box_xyxy) for p in rounded if p.box_xyxy] if rounded else ["[]"]
        tags = "".join(f"<bbox>{box}</bbox>, " for box in boxes)
        return f"{think_block(reasoning)} {tags}{render_points(rounded)}"

    def read(self, body: str, frame: Frame) -> Found:
        reading, contents = find_blocks(body, _TAGS)
        boxes = reading.attempt(_read_boxes, contents["bbox"]) if "bbox" in contents else []
        points, labels = read_points_into(reading, contents)
        if "bbox" in contents and boxes is not None:
            reading.parts.add("bbox")
        if reading.faults or boxes is None:
            return reading
        is_nothing = not points and not any(boxes)
        if is_nothing and len(contents) == 3:
            return reading
        if is_nothing or not all(boxes):
            reading.faults.append((Status.BAD_VALUES, _EMPTY_HERE_ONLY))
            reading.parts.clear()
        else:
            reading.prompts = group([box for block in boxes for box in block], points, labels, frame)
        return reading


def _read_boxes(contents: Sequence[str]) -> list[list[Box]]:
    """The boxes of each tag."""
    values = [read_whole(content) for content in contents]
    check_count(len(values), MAX_BOXES, "boxes")
    boxes = [read_boxes(value) for value in values]
    check_count(sum(map(len, boxes)), MAX_BOXES, "boxes")
    return boxes


class PointsOnly(AnswerFormat):
    """The format named `points-only`."""

    name = "points-only"
    required_parts = frozenset({"points", "labels"})
    scans = BY_TAGS
    system = (
        "You point at things in images for a segmentation model. Answer with points as "
        "<points>[[x1,y1],[x2,y2]]</points> and a label for each point as <labels>[1,0]</labels>: 1 for a point on "
        "the object, 0 for one on the background. Coordinates are whole numbers. If nothing in the image matches, "
        "leave both lists empty."
    )

    def prompt(self, query: str) -> str:
        """As in seg-r1."""
        return segment_prompt(query)

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """Boxes and reasoning have no place here and are left out. Raises ValueError for a prompt without points."""
        if not all(prompt.points_xy for prompt in prompts):
            raise ValueError("points-only cannot say a box without points")
        return render_points([round_prompt(prompt) for prompt in prompts])

    def read(self, body: str, frame: Frame) -> Found:
        reading, contents = find_blocks(body, _POINT_TAGS)
        points, labels = read_points_into(reading, contents)
        reading.prompts = group((), points, labels, frame)
        return reading
