"""A JSON Lines file of one's own: an image, a query and a mask on each line.

One line, with the mask as COCO's run lengths:

    {"image": "photos/a.jpg", "query": "the dog on the left",
     "mask": {"size": [480, 640], "counts": "PPYo1…"}}

and as an example: that query, one target. A mask is written as run lengths (compressed or not), as
polygons in pixels (`[[x1, y1, x2, y2, …], …]`), as the path of a mask file (over half of its range is
the target), or as null, which says that nothing is there. Several targets stand in a list under
`masks`. Optional: `ignore` (a mask of pixels left out of the score), `id` (default: the number of the
line), `tags` (slices for the report, text to text), and for SFT `prompts` (the gold mask prompts in original
pixels, `[{"box_xyxy": […], "points_xy": […], "labels": […]}, …]`, otherwise made from the masks),
`reasoning` (what the gold answer reasons) or `answer` (the whole gold answer, in the policy's words and
its own frame). One of these that is null counts as missing. `scores`, which `segrl segment` writes, are passed over.
Paths are relative to root. Nothing is filtered; a mask that encloses no pixel says "nothing there" too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrl.datasets.drawing import Canvas, stack
from segrl.datasets.rows import Rows
from segrl.errors import DataError
from segrl.files import parse_json, read_text
from segrl.images import read_picture
from segrl.types import ORIGINAL, Example, MaskPrompt

_KEYS = frozenset(
    {"image", "query", "mask", "masks", "ignore", "id", "tags", "reasoning", "answer", "prompts", "scores"}
)

_GOLD = {"reasoning": "reasoning", "answer": "completion_text"}
"""Keys of a line that say what the gold answer is, and their names in `Example.meta`."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file; masks as they are written there."""

    id: str
    image: Path
    query: str
    masks: tuple[Any, ...]
    ignore: Any
    tags: Mapping[str, str]
    where: str
    meta: Mapping[str, Any]


class JsonLines(Rows[Line]):
    """The lines of `file` (under root, or absolute), empty ones passed over.

    Raises DataError naming the line that cannot be used.
    """

    def __init__(self, root: Path | str, file: str = "data.jsonl") -> None:
        self._root, path = Path(root), Path(root) / file
        lines = read_text(path).split("\n")
        rows = [
            parse_line(text, f"line {n} of {path}", n, self._root) for n, text in enumerate(lines, 1) if text.strip()
        ]
        ids = {row.id for row in rows}
        if len(ids) < len(rows):
            raise DataError(f"{path} gives two lines the same id: {len(ids)} ids for {len(rows)} lines")
        super().__init__(rows, str(path))

    def read(self, row: Line) -> Example:
        return read_line(row, self._root, self.canvas(row.image))


def read_line(row: Line, root: Path, canvas: Canvas | None = None) -> Example:
    """The example that a line describes; mask files lie under `root`. Raises DataError for files that do not fit.

    canvas: the line's image, if it was read already.
    """
    canvas = canvas or Canvas(read_picture(row.image))

    def mask(written: Any) -> np.ndarray:
        return canvas.written(written, root, row.where)

    return Example(
        id=row.id,
        image_id=canvas.content_id,
        image=canvas.image,
        query=row.query,
        targets=stack([mask(written) for written in row.masks], canvas.hw, row.where),
        ignore=None if row.ignore is None else mask(row.ignore),
        tags=row.tags,
        meta=row.meta,
    )


def parse_line(text: str, where: str, number: int, root: Path) -> Line:
    """One line of the file, `where` naming it in DataErrors; `number` is its id if it gives none."""
    row = parse_json(text, f"{where} cannot be read:")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("image", "query")):
        raise DataError(f"{where} has no image and query")
    if row.keys() - _KEYS or ("mask" in row) == ("masks" in row):
        raise DataError(f"{where} holds {', '.join(row)}; it may hold {', '.join(sorted(_KEYS))}, mask or masks")
    masks = row["masks"] if "masks" in row else [] if row["mask"] is None else [row["mask"]]
    row = _without_null(row)
    tags = row.get("tags", {})
    if not isinstance(masks, list) or not isinstance(tags, dict):
        raise DataError(f"{where}: masks are a list, tags names with texts")
    return Line(
        id=str(row.get("id", number)),
        image=root / row["image"],
        query=row["query"],
        masks=tuple(masks),
        ignore=row.get("ignore"),
        tags={key: str(value) for key, value in _without_null(tags).items()},
        where=where,
        meta={key: str(row[name]) for name, key in _GOLD.items() if name in row} | _gold_prompts(row, where),
    )


def _without_null(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _gold_prompts(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`meta["prompts"]` of a line that gives them."""
    if "prompts" not in row:
        return {}
    try:
        return {"prompts": tuple(MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"])}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} has prompts that are none: {error!r}") from error
