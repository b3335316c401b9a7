"""Data sets that the `datasets` library reads: saved to disk, parquet files, or by their name on the hub.

`HuggingFace` reads any of them that has images, queries and masks, with a map of its columns. One row, as the copies
of ReasonSeg on the hub have it, and the map that reads it:

    {"image": <JPEG>, "text": "the place where …", "mask": [[false, …], …], "image_id": "…", …}
    columns: {query: text, id: image_id}

and as an example: that query, one target. Columns of ours: `image`, `query`, one of `mask`, `masks` (a
list) and `boxes` (one `[x1, y1, x2, y2]` or a list, exclusive maximum, in pixels of the stored image),
and if mapped `ignore`, `id`, `kind`, `reasoning`, `answer`. A mask may be written in every way that
`Canvas.written` knows; a null or an empty list says that nothing is there. From boxes the truth is the
filled boxes (`meta["truth"]` is "box"). Nothing is filtered out.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segrl.datasets.drawing import Canvas, checked_box, stack
from segrl.datasets.rows import Examples
from segrl.errors import DataError
from segrl.images import ImageBytes
from segrl.masks import box_to_mask
from segrl.text import did_you_mean, first_line
from segrl.types import Box, Example

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class TableRows(Examples):
    """The rows of one split of a table; an image is read when its example is asked for.

    root: a folder that `datasets` saved (`save_to_disk`), a folder with parquet files (for instance a
    clone of a data set on the hub) or one such file, or the name of a data set on the hub. config and
    revision: for the latter. columns: those that the reader needs.
    Raises DataError for a table that is not there, another split, and a column that is missing.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        split: str,
        columns: Iterable[str],
        config: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.root = Path(root)
        self.table = open_table(root, split, config, revision)
        self.name = f"{root} {split}"
        for column in columns:
            if column not in self.table.column_names:
                raise DataError(f"{self.name} has no column {column!r}; it has {', '.join(self.table.column_names)}")
        self._places = list(range(len(self.table)))
        if not self._places:
            raise DataError(f"{self.name} holds no examples")

    def __len__(self) -> int:
        return len(self._places)

    def example(self, place: int) -> Example:
        row = self._places[place]
        return self.read(row, self.table[row])

    @abstractmethod
    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        """The example of the row that stands at `place` of the table."""

    def where(self, place: int) -> str:
        """The row for a message."""
        return f"row {place} of {self.name}"

    def image_file(self, place: int, written: Any) -> Path | ImageBytes:
        """The image file of a row: `datasets`' own form, or a path (under root, or absolute). Raises DataError."""
        if isinstance(written, str):
            return self.root / written
        if not isinstance(written, Mapping) or not (written.get("bytes") or written.get("path")):
            raise DataError(f"{self.where(place)} has no image, but {written!r:.60}")
        if written.get("bytes"):
            return ImageBytes(written["bytes"], f"of {self.where(place)}")
        return self.root / written["path"]

    def image(self, place: int, written: Any) -> Image.Image:
        """`image_file` read: RGB, EXIF orientation applied."""
        return self.canvas(self.image_file(place, written)).image


def open_table(root: Path | str, split: str, config: str | None = None, revision: str | None = None) -> Any:
    """The split of a data set as a `datasets.Dataset` whose images are left as files (`{"bytes": …, "path": …}`).

    Raises DataError in one line.
    """
    from datasets import Dataset, DatasetDict, Image, load_dataset

    path, name = Path(root), str(root)
    try:
        if (path / "dataset_dict.json").is_file():
            found = _split_of(DatasetDict.load_from_disk(name), split, name)
        elif (path / "state.json").is_file():
            found = Dataset.load_from_disk(name)
        elif path.is_file():
            found = load_dataset("parquet", data_files={split: name}, split=split)
        elif path.is_dir() or _HUB_NAME.fullmatch(name):
            found = load_dataset(name, name=config, split=split, revision=revision)
        else:
            raise DataError(f"there is no {name}: give a folder of the data set, or owner/name on the hub")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(f"cannot read the split {split!r} of {name}: {first_line(error)}") from error
    for column, feature in found.features.items():
        if isinstance(feature, Image):
            found = found.cast_column(column, Image(decode=False))
    return found


def _split_of(splits: Mapping[str, Any], split: str, name: str) -> Any:
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


TARGETS = ("mask", "masks", "boxes")
OURS = ("image", "query", *TARGETS, "ignore", "id", "kind", "reasoning", "answer")
"""Names that a map of columns may have on its left."""

_GOLD = {"reasoning": "reasoning", "answer": "completion_text"}


class HuggingFace(TableRows):
    """root, split, config, revision: see TableRows.

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
    ) -> None:
        given = dict(columns or {})
        for name in given:
            if name not in OURS:
                raise DataError(f"hf has no column {name!r}; {did_you_mean(name, OURS)}")
        super().__init__(root, split=split, columns=given.values(), config=config, revision=revision)
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
