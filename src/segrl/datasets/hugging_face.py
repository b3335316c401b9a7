"""Any Hugging Face data set of images, queries and masks, with a map of its columns.

One row, as the copies of ReasonSeg on the hub have it, and the map that reads it:

    {"image": <JPEG>, "text": "the place where …", "mask": [[false, …], …], "image_id": "…", …}
    columns: {query: text, id: image_id}

and as an example: that query, one target. Columns of ours: `image`, `query`, one of `mask`, `masks` (a
list) and `boxes` (one `[x1, y1, x2, y2]` or a list, exclusive maximum, in pixels of the stored image),
and if mapped `ignore`, `id`, `kind`, `reasoning`, `answer`. A mask may be written in every way that
`written_masks` knows; a null or an empty list says that nothing is there. From boxes the truth is the
filled boxes (`meta["truth"]` is "box"). Nothing is filtered out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segrl.datasets.drawing import Canvas, checked_box, stack
from segrl.datasets.tables import TableRows
from segrl.errors import DataError
from segrl.masks import box_to_mask
from segrl.text import did_you_mean
from segrl.types import Box, Example

TARGETS = ("mask", "masks", "boxes")
OURS = ("image", "query", *TARGETS, "ignore", "id", "kind", "reasoning", "answer")
"""Names that a map of columns may have on its left."""

_GOLD = {"reasoning": "reasoning", "answer": "completion_text"}


class HuggingFace(TableRows):
    """root, split, config, revision, sample: see TableRows.

    columns: ours → theirs; a name of ours that is not there stands for itself if the table has such a
    column. query: the request that goes with every image, in place of a column. Raises DataError for
    a name that is not ours (naming the nearest), and for no or several kinds of targets.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        split: str = "train",
        columns: Mapping[str, str] | None = None,
        query: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        sample: Mapping[str, int] | None = None,
    ) -> None:
        given = dict(columns or {})
        for name in given:
            if name not in OURS:
                raise DataError(f"hf has no column {name!r}; {did_you_mean(name, OURS)}")
        super().__init__(root, split=split, columns=given.values(), config=config, revision=revision, sample=sample)
        theirs = {name: name for name in OURS if name in self.table.column_names}
        kinds = [name for name in TARGETS if name in given] or [name for name in TARGETS if name in theirs]
        if len(kinds) != 1:
            said = f"has {' and '.join(kinds)}" if kinds else f"has none of {', '.join(TARGETS)}"
            raise DataError(f"{self.name} {said}: name the column with the targets, columns: {{mask: …}}")
        self._columns = {k: v for k, v in theirs.items() if k not in TARGETS or k in kinds} | given
        self._targets, self._query = kinds[0], query
        if "image" not in self._columns or (query is None and "query" not in self._columns):
            raise DataError(
                f"{self.name}: name the columns with image and query ({', '.join(self.table.column_names)})"
            )

    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        """See TableRows."""
        where, value = self.where(place), {ours: row[theirs] for ours, theirs in self._columns.items()}
        file = self.image_file(place, value["image"])
        canvas = self.canvas(file)

        def mask(written: Any) -> np.ndarray:
            return canvas.written(written, self.root, where)

        query = value["query"] if self._query is None else self._query
        if query is None:
            raise DataError(f"{where} has no query")
        meta: dict[str, Any] = {key: value[name] for name, key in _GOLD.items() if value.get(name)}
        if self._targets == "boxes":
            boxes = _boxes(value["boxes"], where)
            targets = [_filled(box, canvas, where) for box in boxes]
            meta |= {"boxes_xyxy": boxes, "truth": "box"}
        else:
            written = value[self._targets]
            several = list(written or ()) if self._targets == "masks" else [written] if written else []
            targets = [mask(one) for one in several]
        return Example(
            id=str(place if value.get("id") is None else value["id"]),
            image_id=canvas.content_id,
            image=canvas.image,
            query=str(query),
            targets=stack(targets, canvas.hw, where),
            ignore=mask(value["ignore"]) if value.get("ignore") else None,
            tags={"kind": str(value["kind"])} if value.get("kind") is not None else {},
            meta=meta,
        )


def _filled(box: Box, canvas: Canvas, where: str) -> np.ndarray:
    hw = canvas.drawn_hw
    return canvas.fit(box_to_mask(checked_box(box, hw, where), hw), f"of {where}")


def _boxes(written: Any, where: str) -> tuple[Box, ...]:
    """One box or a list of boxes. Raises DataError."""
    if not written:
        return ()
    try:
        rows = written if isinstance(written[0], list | tuple) else [written]
        boxes = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in rows)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} has no box of four numbers: {written!r:.60}") from error
    for box in boxes:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise DataError(f"{where} has a box without area: {box}")
    return boxes
