"""Seg-Zero's RefCOCOg sets and VisionReasoner's multi-object sets, as their authors give them away.

Rows of `Ricky06662/refCOCOg_9k_840` and of `Ricky06662/VisionReasoner_multi_object_7k_840` (columns as in
the data sets' cards and Seg-Zero's gen_training_dataset.py; the values an illustration):

    {"id": "refcocog_1719310", "problem": "the lady with the blue shirt", "image": <840×840>,
     "solution": "<box>(130,79),(391,778)</box><points>(262,300),(240,512)</points>",
     "img_height": 427, "img_width": 640}
    {…, "problem": "'man in blue' and 'left dog'",
     "solution": "[{\\"bbox_2d\\": [130, 79, 391, 778], \\"point_2d\\": [262, 300]}, …]"}

and as an example: the problem as the query, the gold mask prompts in `meta["prompts"]` (all points lie
on the object), and the filled boxes as targets, since the sets hold no masks. Pictures are stored
squashed to 840×840, the size in which those policies see them; `restore: true` gives them their
proportions back (`img_width`, `img_height`). A box's maximum is the last pixel in the authors' script, so
one original pixel is added to make it exclusive. Nothing is filtered out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from segrl.datasets.prompted import prompted_example
from segrl.datasets.tables import TableRows
from segrl.errors import DataError
from segrl.types import Box, Example, Frame, MaskPrompt, Point

REFCOCOG = "Ricky06662/refCOCOg_9k_840"
MULTI_OBJECT = "Ricky06662/VisionReasoner_multi_object_7k_840"

Solution = list[tuple[Box, tuple[Point, ...]]]
"""Boxes with an inclusive maximum, each with its points."""

_PAIR = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
_BOX = re.compile(rf"<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>")
_POINTS = re.compile(rf"<points>\s*{_PAIR}\s*,\s*{_PAIR}\s*</points>")


class SquashedSet(TableRows):
    """The rows of one set. read_solution: its text → boxes and points; raises KeyError, TypeError or ValueError.

    restore: resize pictures to the original width and height. The rest: see TableRows.
    """

    def __init__(
        self,
        root: Path | str,
        read_solution: Callable[[str], Solution],
        *,
        split: str,
        restore: bool,
        revision: str | None,
        sample: Mapping[str, int] | None,
    ) -> None:
        columns = ("id", "problem", "solution", "image", "img_height", "img_width")
        super().__init__(root, split=split, columns=columns, revision=revision, sample=sample)
        self._read_solution, self._restore = read_solution, restore

    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        """See TableRows. Raises DataError for a solution that cannot be read."""
        where = self.where(place)
        stored = self.image(place, row["image"])
        original_wh = (int(row["img_width"]), int(row["img_height"]))
        pixel_wh = stored.width / original_wh[0], stored.height / original_wh[1]
        frame = Frame.resized(*stored.size)
        try:
            found = self._read_solution(str(row["solution"]))
            prompts = [
                MaskPrompt(_exclusive(box, pixel_wh, stored.size), points, (1,) * len(points), frame)
                for box, points in found
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} has a solution that cannot be read: {str(row['solution'])!r:.80}") from error
        image = stored.resize(original_wh, Image.Resampling.BICUBIC) if self._restore else stored
        return prompted_example(str(row["id"]), image, str(row["problem"]).strip(), prompts, where)


def _exclusive(box: Box, pixel_wh: tuple[float, float], size_wh: tuple[int, int]) -> Box:
    """A box whose maximum is the last pixel of the original, with the maximum behind it, inside the picture."""
    x1, y1, x2, y2 = box
    return (x1, y1, min(x2 + pixel_wh[0], size_wh[0]), min(y2 + pixel_wh[1], size_wh[1]))


def seg_zero(
    root: Path | str = REFCOCOG,
    *,
    split: str = "train",
    restore: bool = False,
    revision: str | None = None,
    sample: Mapping[str, int] | None = None,
) -> SquashedSet:
    """Seg-Zero's RefCOCOg sets of 2,000 and 9,000 expressions: one object each, with two points on it."""
    return SquashedSet(root, _tagged_solution, split=split, restore=restore, revision=revision, sample=sample)


def visionreasoner(
    root: Path | str = MULTI_OBJECT,
    *,
    split: str = "train",
    restore: bool = False,
    revision: str | None = None,
    sample: Mapping[str, int] | None = None,
) -> SquashedSet:
    """VisionReasoner's sets: any number of objects, each with a box and a point on it."""
    return SquashedSet(root, _json_solution, split=split, restore=restore, revision=revision, sample=sample)


def _tagged_solution(text: str) -> Solution:
    box, points = _BOX.search(text), _POINTS.search(text)
    if box is None or points is None:
        raise ValueError("no box and points")
    x1, y1, x2, y2 = map(float, box.groups())
    ax, ay, bx, by = map(float, points.groups())
    return [((x1, y1, x2, y2), ((ax, ay), (bx, by)))]


def _json_solution(text: str) -> Solution:
    found: Solution = []
    for entry in json.loads(text):
        x1, y1, x2, y2 = map(float, entry["bbox_2d"])
        x, y = map(float, entry["point_2d"])
        found.append(((x1, y1, x2, y2), ((x, y),)))
    return found
