"""The answer of Seg-R1's first stage: points with labels, no box, no reasoning (arXiv 2506.22624).

    <points>[[x1,y1],…]</points>, <labels>[1,0,…]</labels>

All points are one mask prompt. Empty lists in both tags say "nothing there".
"""

from __future__ import annotations

from collections.abc import Sequence

from segrl.answers.base import AnswerFormat
from segrl.answers.prompts import group, round_prompt
from segrl.answers.reading import Found, tag_pattern
from segrl.answers.scan import BY_TAGS
from segrl.answers.tagged import find_blocks, read_points_into, render_points, segment_prompt
from segrl.types import Frame, MaskPrompt

_TAGS = tag_pattern("points", "labels")


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
        """See AnswerFormat."""
        reading, contents = find_blocks(body, _TAGS)
        points, labels = read_points_into(reading, contents)
        reading.prompts = group((), points, labels, frame)
        return reading
