"""What is finished of a folder: a line for each image, from which every export can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from segrl.errors import DataError
from segrl.exports import ImageRecord
from segrl.files import write_atomically
from segrl.jobs.journal import Journal, check_settings, read_settings

RESULTS, SETTINGS, LOCK = "results.jsonl", "segment.json", ".lock"


class Records:
    """The records in `out/results.jsonl`, one per image (a later line takes an earlier one's place).

    settings: what every record was made with (`out/segment.json`, written by `begin`). A folder with records of
    other settings raises SegrlError; one without any record belongs to nobody yet.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._settings_path, self._settings = out / SETTINGS, dict(settings)
        self._journal = Journal(
            out / RESULTS, lambda row: row["image"], note=lambda row: (row["file_name"], row["name"])
        )
        self.names = Names()
        for file_name, name in self._journal.notes.values():
            self.names.keep(file_name, name)
        self.queries = self._claim() if self._journal else []

    def begin(self, queries: Sequence[str]) -> None:
        """Writes what the records are made with. New queries go to the end, so that classes keep their numbers."""
        self.queries = list(dict.fromkeys([*self.queries, *queries]))
        content = self._settings | {"queries": self.queries}
        write_atomically(self._settings_path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def get(self, image: Path) -> ImageRecord | None:
        """The image's record; None if it is not finished."""
        return self._record(str(image)) if str(image) in self._journal else None

    def add(self, record: ImageRecord) -> None:
        """Appends a record."""
        self._journal.add(record.to_json())

    def __iter__(self) -> Iterator[ImageRecord]:
        """The records by file name, so that no export depends on what was finished when."""
        for image in sorted(self._journal, key=lambda image: (self._journal.notes[image], image)):
            yield self._record(image)

    def _record(self, image: str) -> ImageRecord:
        try:
            return ImageRecord.from_json(self._journal.get(image) or {})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._journal.path} holds a line that is no record: {error!r}") from error

    def _claim(self) -> list[str]:
        """The queries that the folder was asked."""
        there = read_settings(self._settings_path)
        queries = there.pop("queries", None)
        if not isinstance(queries, list):
            raise DataError(f"{self._settings_path} says no queries")
        check_settings(self._settings_path.parent, there, self._settings, "masks made")
        return queries


class Names:
    """File names, and names of files made of them, that no two images share, whatever the letters' case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def keep(self, file_name: str, name: str) -> None:
        """Marks both as taken."""
        self._taken |= {self._key(file_name, "file"), self._key(name, "name")}

    def take(self, wanted: str) -> tuple[str, str]:
        """(file name, name without suffix), `wanted` itself or with `-2`, `-3`, … before the suffix.

        Neither leads out of the folder it is used in.
        """
        path = PurePosixPath(*(part for part in PurePosixPath(wanted).parts if part not in ("..", "/")))
        chosen, number = path, 1
        while {self._key(str(chosen), "file"), self._key(str(chosen.with_suffix("")), "name")} & self._taken:
            number += 1
            chosen = path.with_stem(f"{path.stem}-{number}")
        self.keep(str(chosen), str(chosen.with_suffix("")))
        return str(chosen), str(chosen.with_suffix(""))

    @staticmethod
    def _key(name: str, kind: str) -> str:
        return f"{kind} {name.casefold()}"
