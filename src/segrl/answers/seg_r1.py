"""Seg-R1's answer: boxes, points and labels in tags of their own (arXiv 2506.22624).

    <think>…</think> <bbox>[x1,y1,x2,y2]</bbox>, <points>[[x1,y1],…]</points>, <labels>[1,0,…]</labels>

What stands between the tags is skipped. Several boxes are several objects, in a tag each or in one.
A box alone is an answer, and so are points with labels alone. Empty lists in all three tags say
"nothing there".
"""

from __future__ import annotations

from collections.abc import Sequence

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.lenient_json import read_whole
from segrl.answers.prompts import MAX_BOXES, check_count, group, read_boxes, round_prompt
from segrl.answers.reading import Found, tag_pattern
from segrl.answers.scan import BY_TAGS
from segrl.answers.tagged import find_blocks, read_points_into, render_points, segment_prompt
from segrl.types import Box, Frame, MaskPrompt, Status

_EMPTY_HERE_ONLY = 'an empty list, which says "nothing there" only where the lists in all three tags are empty'
_TAGS = tag_pattern("bbox", "points", "labels")


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
        """See AnswerFormat."""
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
