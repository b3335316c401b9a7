"""What is finished: a line for each image, from which every export can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from segrl.errors import DataError, SegrlError
from segrl.exports import ImageRecord
from segrl.files import append_rows, make_directory, write_atomically

RESULTS, SETTINGS = "results.jsonl", "segment.json"


class Journal:
    """The records in `out/results.jsonl`, one per image (a later line takes an earlier one's place).

    Holds the places of the lines, not the records. settings: what every record was made with
    (`out/segment.json`); opening a journal of other settings raises SegrlError. A last line that was
    cut off is dropped.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings_path, self._settings = out / RESULTS, out / SETTINGS, dict(settings)
        make_directory(out)
        self.queries = _claim(self._settings_path, settings)
        self.names = Names()
        self._places: dict[str, tuple[str, int]] = {}
        self._scan()

    def ask(self, queries: list[str]) -> None:
        """Adds queries that are new at the end of `queries`, so that classes keep their numbers."""
        self.queries = list(dict.fromkeys([*self.queries, *queries]))
        content = self._settings | {"queries": self.queries}
        write_atomically(self._settings_path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def get(self, image: Path) -> ImageRecord | None:
        """The image's record; None if it is not finished."""
        known = self._places.get(str(image))
        return None if known is None else self._read(known[1])

    def add(self, record: ImageRecord) -> None:
        """Appends a record."""
        place = self._path.stat().st_size if self._path.exists() else 0
        append_rows(self._path, [record.to_json()])
        self._places[record.image] = (record.file_name, place)

    def __iter__(self) -> Iterator[ImageRecord]:
        """The records by file name, so that no export depends on what was finished when."""
        for _, place in sorted(self._places.values()):
            yield self._read(place)

    def _read(self, place: int) -> ImageRecord:
        with self._path.open("rb") as file:
            file.seek(place)
            return self._record(file.readline())

    def _record(self, line: bytes) -> ImageRecord:
        try:
            return ImageRecord.from_json(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._path} holds a line that is no record: {error!r}") from error

    def _scan(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            place = 0
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(place)
                    return
                record = self._record(line)
                self._places[record.image] = (record.file_name, place)
                self.names.keep(record.file_name, record.name)
                place += len(line)


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


def _claim(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """The queries of the journal that `path` belongs to; none for a new one."""
    if not path.exists():
        return []
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        queries = list(there.pop("queries"))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"cannot read {path}: {error!r}") from error
    for key, value in settings.items():
        if there.get(key) != value:
            raise SegrlError(
                f"{path.parent} holds masks made with {key} {there.get(key)}, not {value}: give another --out"
            )
    return queries
