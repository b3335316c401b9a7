"""What every export is: a file for each image, or one file for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from segrl.exports.record import ImageRecord


class Export:
    """Writes records in one format under `out`; each file appears whole or not at all.

    queries: every query that a record may answer; its place is its class (0, 1, …), so a list may
    grow at its end only. An empty answer is written as the format says "nothing".
    """

    name: str

    def __init__(self, out: Path, queries: Sequence[str]) -> None:
        self.out, self.queries = out, tuple(queries)
        self.class_of = {query: i for i, query in enumerate(self.queries)}

    def files(self, record: ImageRecord) -> list[Path]:
        """The files that `add` makes of this record; none for a format of one file."""
        return []

    def is_there(self, record: ImageRecord) -> bool:
        """Whether none of these files is missing."""
        return all(path.exists() for path in self.files(record))

    def add(self, record: ImageRecord) -> None:
        """Writes what belongs to one image, in place of what stands there."""

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """Writes what belongs to all; `records` is gone through more than once. Returns the file or folder."""
        raise NotImplementedError


def query_folder(place: int, query: str) -> str:
    """A folder name that is unique by `place` and safe whatever the query says.

    >>> query_folder(0, "The cup / nearest the edge!")
    '1-the-cup-nearest-the-edge'
    """
    words = re.sub(r"[^a-z0-9]+", "-", query.lower()).strip("-")[:40].strip("-")
    return f"{place + 1}-{words}" if words else str(place + 1)
