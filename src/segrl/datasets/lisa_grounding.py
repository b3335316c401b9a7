"""LISA-Grounding: ReasonSeg's questions with a box as the answer, as VLM-R1's authors distribute it.

One row of `lisa_test.json` (the fields are those that VLM-R1's evaluation reads, the values an illustration):

    {"image": "test/….jpg", "solution": [296, 144, 408, 327],
     "problem": "Please provide the bounding box coordinate of the region this sentence describes: …"}

and as an example: the sentence as the query, the filled box as the one target, and the box itself in
`meta["boxes_xyxy"]` (original pixels, exclusive maximum). The truth is a box: box accuracy at 0.5 is
the published measure, and a mask score here says how well a mask fills it (`meta["truth"]` is "box").

    root/lisa_test.json    root/test/….jpg

The request around the sentence is cut off, so that a policy is asked in its own answer format's words.
Nothing is filtered out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.datasets.drawing import checked_box, stack
from segrl.datasets.rows import Rows
from segrl.documents import read_json
from segrl.errors import DataError
from segrl.masks import box_to_mask
from segrl.types import Box, Example

REQUEST = "Please provide the bounding box coordinate of the region this sentence describes:"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence with the box that it describes."""

    id: str
    image: Path
    query: str
    box_xyxy: Box


class LisaGrounding(Rows[Sentence]):
    """The rows of `root/lisa_test.json`, or of another `file`; image paths are under `images`, by default root.

    sample: a seeded subset, see Rows. Raises DataError naming the row that cannot be used.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        file: str = "lisa_test.json",
        images: str = ".",
        sample: Mapping[str, int] | None = None,
    ) -> None:
        path = Path(root) / file
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path} is no list of rows")
        sentences = [_sentence(row, index, Path(root) / images, path) for index, row in enumerate(rows)]
        super().__init__(sentences, str(path), sample)

    def read(self, row: Sentence) -> Example:
        """See Rows. Raises DataError for a box that lies outside its image."""
        canvas, name = self.canvas(row.image), f"row {row.id} ({row.image})"
        hw = canvas.drawn_hw
        target = canvas.fit(box_to_mask(checked_box(row.box_xyxy, hw, name), hw), name)
        return Example(
            id=row.id,
            image_id=canvas.content_id,
            image=canvas.image,
            query=row.query,
            targets=stack([target], canvas.hw),
            meta={"boxes_xyxy": (row.box_xyxy,), "truth": "box"},
        )


def _sentence(row: Any, index: int, images: Path, path: Path) -> Sentence:
    try:
        x1, y1, x2, y2 = map(float, row["solution"])
        query = row["problem"].removeprefix("<image>").strip().removeprefix(REQUEST).strip()
        image = images / row["image"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"row {index} of {path} has no image, problem and solution of four numbers: {error}") from error
    if not (x1 < x2 and y1 < y2):
        raise DataError(f"row {index} of {path}: {row['solution']} is no box")
    return Sentence(str(index), image, query, (x1, y1, x2, y2))
