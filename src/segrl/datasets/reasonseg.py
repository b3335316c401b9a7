"""ReasonSeg: questions that need reasoning, from the files of LISA's authors; and LISA-Grounding, boxes for them.

One annotation, `val/….json` beside the `.jpg` of the same stem (in LISA's form, the values an illustration):

    {"text": ["the place where the garbage should be put"], "is_sentence": false,
     "shapes": [{"label": "target", "shape_type": "polygon", "points": [[348.0, 213.5], …]},
                {"label": "ignore", "shape_type": "polygon", "points": [[12.0, 480.2], …]}]}

and as an example: that query, `tags["kind"]` "short" ("long" where `is_sentence`), one target at the
image's size, and the `ignore` polygons as `Example.ignore`, left out of every score.

All texts of a file are examples of their own (LISA's own loader keeps the first; train images have up
to five). The target polygons of an image are one target, as they answer one question together. Shapes
labelled `flag` are passed over: the authors call them meaningless and deprecated. Polygons are drawn
as the authors draw them, the largest first and among equals the last first, each with its outline, so
a smaller `ignore` cuts into a larger target. A file without a target polygon says that nothing is there.

LISA-Grounding, as VLM-R1's authors distribute it, has a box as the answer. One row of `lisa_test.json` (the fields
are those that VLM-R1's evaluation reads, the values an illustration), beside which the images lie in `test/`:

    {"image": "test/….jpg", "solution": [296, 144, 408, 327],
     "problem": "Please provide the bounding box coordinate of the region this sentence describes: …"}

and as an example: the sentence as the query, the filled box as the one target, and the box itself in
`meta["boxes_xyxy"]` (original pixels, exclusive maximum). The truth is a box: box accuracy at 0.5 is
the published measure, and a mask score here says how well a mask fills it (`meta["truth"]` is "box").
The request around the sentence is cut off, so that a policy is asked in its own answer format's words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrl.datasets.drawing import checked_box, stack
from segrl.datasets.rows import Rows, first_folder
from segrl.errors import DataError
from segrl.files import legible, read_json
from segrl.masks import box_to_mask, check_corners
from segrl.types import Box, Example

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Question:
    """One text of an annotation file: shapes are (label, `(n, 2)` points in pixels)."""

    id: str
    image: Path
    query: str
    is_long: bool
    shapes: tuple[tuple[str, np.ndarray], ...]


class ReasonSeg(Rows[Question]):
    """The questions of one split, by file name: `root/ReasonSeg/val` or `root/val` and so on.

    Raises DataError naming the file that is missing or unreadable.
    """

    def __init__(self, root: Path | str, *, split: str = "val") -> None:
        if split not in SPLITS:
            raise DataError(f"reasonseg has the splits {', '.join(SPLITS)}, not {split!r}")
        folder = first_folder([Path(root) / "ReasonSeg" / split, Path(root) / split], f"the files of ReasonSeg {split}")
        questions = [question for path in sorted(folder.glob("*.json")) for question in _questions(path)]
        super().__init__(questions, f"ReasonSeg {split} ({folder})")

    def read(self, row: Question) -> Example:
        canvas = self.canvas(row.image)
        values = _draw(row.shapes, canvas.drawn_hw, f"the annotation of {row.image}")
        target, ignore = (canvas.fit(values == value, str(row.image)) for value in (_TARGET, _IGNORE))
        return Example(
            id=row.id,
            image_id=canvas.content_id,
            image=canvas.image,
            query=row.query,
            targets=stack([target], canvas.hw),
            ignore=ignore if ignore.any() else None,
            tags={"kind": "long" if row.is_long else "short"},
        )


_TARGET, _IGNORE = 1, 255


def _draw(shapes: tuple[tuple[str, np.ndarray], ...], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """`(H, W)` uint8: 1 on the target, 255 on pixels to ignore (LISA, utils/data_processing.py)."""
    import cv2

    drawn = []
    for label, points in shapes:
        shape = np.zeros(image_hw, dtype=np.uint8)
        corners = [
            np.trunc(points).astype(np.int32) for points in check_corners([points.ravel().tolist()], image_hw, name)
        ]
        cv2.polylines(shape, corners, isClosed=True, color=1, thickness=1)
        cv2.fillPoly(shape, corners, color=1)
        drawn.append((label, shape.astype(bool)))
    values = np.zeros(image_hw, dtype=np.uint8)
    smallest_first = sorted(drawn, key=lambda pair: int(pair[1].sum()))
    for label, inside in reversed(smallest_first):
        values[inside] = _IGNORE if "ignore" in label else _TARGET
    return values


def _questions(path: Path) -> Iterator[Question]:
    row = read_json(path, "utf-8", "cp1252")  # some of the files were written on Windows
    try:
        shapes = tuple(
            (s["label"].lower(), _points(s["points"])) for s in row["shapes"] if s["label"].lower() != "flag"
        )
        texts, is_long = row["text"], bool(row["is_sentence"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no annotation with text, is_sentence and shapes: {error}") from error
    for index, text in enumerate([texts] if isinstance(texts, str) else texts):
        yield Question(f"{legible(path.stem)}-{index}", path.with_suffix(".jpg"), str(text).strip(), is_long, shapes)


def _points(points: Any) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError("a shape's points are no list of [x, y]")
    return array


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

    Raises DataError naming the row that cannot be used.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        file: str = "lisa_test.json",
        images: str = ".",
    ) -> None:
        path = Path(root) / file
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path} is no list of rows")
        sentences = [_sentence(row, index, Path(root) / images, path) for index, row in enumerate(rows)]
        super().__init__(sentences, str(path))

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
