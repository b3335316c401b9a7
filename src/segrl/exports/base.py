"""What every export is: a file for each image, or one file for all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segrl.exports.record import ImageRecord
from segrl.images import AS_IT_IS, PictureOptions

LONGEST_FOLDER_BYTES = 120
"""Of a query in a folder's name; file systems take 255 bytes, and some of them two bytes for each letter."""


@dataclass(frozen=True)
class Style:
    """What a person may choose of an export.

    exact_polygons: in LabelMe and Label Studio every corner of the mask. pictures: how images are read, where they
    are read again.
    """

    exact_polygons: bool = False
    pictures: PictureOptions = AS_IT_IS


class Export:
    """Writes records in one format under `out`; each file appears whole or not at all.

    queries: every query that a record may answer; its place is its class (0, 1, …), so a list may
    grow at its end only. An empty answer is written as the format says "nothing".
    """

    name: str

    def __init__(self, out: Path, queries: Sequence[str], style: Style | None = None) -> None:
        self.out, self.queries, self.style = out, tuple(queries), style or Style()
        self.class_of = {query: i for i, query in enumerate(self.queries)}

    @property
    def place(self) -> Path:
        """The file or folder of the format, which is there if the format was ever written."""
        return self.out / self.name

    def files(self, record: ImageRecord) -> list[Path]:
        """The files that `add` makes of this record; none for a format of one file."""
        return []

    def is_there(self, record: ImageRecord) -> bool:
        """Whether none of these files is missing."""
        return all(path.exists() for path in self.files(record))

    def add(self, record: ImageRecord, queries: Collection[str] | None = None) -> None:
        """Writes what belongs to one image.

        queries: only the answers to these are new; what stands in a file about others, perhaps corrected by hand,
        stays. None writes everything anew.
        """

    def move(self, old: ImageRecord, new: ImageRecord) -> None:
        """The files of `old` become those of `new`: the same answers about an image that lies elsewhere now."""
        for there, here in zip(self.files(old), self.files(new), strict=True):
            if there != here and there.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                there.replace(here)

    def keep(self, old: ImageRecord, new: ImageRecord, was: Export) -> None:
        """Brings the files of one image from the queries of `was` to those of this export, which are some of them.

        old, new: the record with all its answers, and without those to queries that go.
        """

    def remove(self, record: ImageRecord) -> None:
        """Removes the files of one image, and folders that hold nothing any more."""
        for path in self.files(record):
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.place or not folder.is_dir() or any(folder.iterdir()):
                return
            folder.rmdir()

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """Writes what belongs to all; `records` is gone through more than once. Returns the file or folder."""
        return self.place


def query_folder(place: int, query: str) -> str:
    """A folder name that is unique by `place`, and readable and safe whatever the query says, in any script.

    >>> query_folder(0, "The cup / nearest the edge!"), query_folder(1, "红色的杯子")
    ('1-the-cup-nearest-the-edge', '2-红色的杯子')
    """
    words = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", query).lower())[:40]
    while len(words.encode(errors="replace")) > LONGEST_FOLDER_BYTES:
        words = words[:-1]
    words = words.strip("-_")
    return f"{place + 1}-{words}" if words else str(place + 1)
