"""Data sets that the `datasets` library reads: saved to disk, parquet files, or by their name on the hub."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from segrl.datasets.rows import Examples, choose_sample
from segrl.errors import DataError
from segrl.images import ImageBytes
from segrl.text import first_line
from segrl.types import Example

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class TableRows(Examples):
    """The rows of one split of a table; an image is read when its example is asked for.

    root: a folder that `datasets` saved (`save_to_disk`), a folder with parquet files (for instance a
    clone of a data set on the hub) or one such file, or the name of a data set on the hub. config and
    revision: for the latter. columns: those that the reader needs. sample: see `choose_sample`.
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
        sample: Mapping[str, int] | None = None,
    ) -> None:
        self.root = Path(root)
        self.table = open_table(root, split, config, revision)
        self.name = f"{root} {split}"
        for column in columns:
            if column not in self.table.column_names:
                raise DataError(f"{self.name} has no column {column!r}; it has {', '.join(self.table.column_names)}")
        self._places = choose_sample(range(len(self.table)), sample)
        if not self._places:
            raise DataError(f"{self.name} holds no examples")

    def __len__(self) -> int:
        return len(self._places)

    def example(self, place: int) -> Example:
        """See Examples."""
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
