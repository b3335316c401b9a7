"""What is finished of a folder: a line for each image, from which every export can be made again.

The most doubtful images are written for an annotator on request:

    review/review.jsonl         a line for each image, the most doubtful first
    review/label-studio/, review/labelme/      drafts to correct, of these images alone

An answer that could not be read counts as the most doubtful. Files of LabelMe that are there are left as they are:
somebody may have corrected them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segrl import exports
from segrl.errors import DataError, SegrlError
from segrl.exports import ImageRecord
from segrl.files import json_line, make_directory, write_atomically
from segrl.folder_job.worker import Plan
from segrl.jobs.journal import Journal, Row, check_settings, read_settings

RESULTS, SETTINGS, LOCK = "results.jsonl", "segment.json", ".lock"

LONGEST_NAME_BYTES = 200
"""Of a part of a derived name: file systems take 255 bytes with a suffix, a number, and the folder's own needs."""


@dataclass(frozen=True)
class Note:
    """What is held in memory of a record."""

    file_name: str
    name: str
    n_bytes: int | None
    sha256: str | None


class Records:
    """The records in `out/results.jsonl`, one per image (a later line takes an earlier one's place).

    settings: what every record was made with (`out/segment.json`, written by `begin`). A folder with records of
    other settings raises SegrlError; one without any record belongs to nobody yet. queries, formats: what the folder
    was asked and holds.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings_path, self._settings = out / RESULTS, out / SETTINGS, dict(settings)
        self._journal = Journal(
            self._path, key=_key, note=_note, voids=lambda row: [row[key] for key in ("gone", "was") if key in row]
        )
        self.names = Names()
        for note in self.notes.values():
            self.names.keep(note.file_name, note.name)
        self.queries: list[str] = []
        self.formats: list[str] | None = []
        if self._journal:
            self._claim()

    @property
    def notes(self) -> Mapping[str, Note]:
        """A note for each image."""
        return self._journal.notes

    def begin(self, queries: Sequence[str], formats: Sequence[str]) -> None:
        """Writes what the records are made with. New queries go to the end, so that classes keep their numbers."""
        self.queries, self.formats = list(queries), list(formats)
        content = self._settings | {"queries": self.queries, "formats": self.formats}
        write_atomically(self._settings_path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def get(self, image: Path | str) -> ImageRecord | None:
        """The image's record; None if it is not finished."""
        row = self._journal.get(str(image))
        if row is None:
            return None
        try:
            return ImageRecord.from_json(row)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._path} holds a line that is no record: {error!r}") from error

    def add(self, record: ImageRecord, was: str | None = None) -> None:
        """Appends a record. was: where its image lay before; that record is void."""
        self._free(was)
        self._journal.add(record.to_json() | ({} if was is None else {"was": was}))
        self.names.keep(record.file_name, record.name)

    def remove(self, image: str) -> None:
        """Makes a record void."""
        self._free(image)
        self._journal.add({"gone": image})

    def _free(self, image: str | None) -> None:
        if image is not None and image in self.notes:
            self.names.free(self.notes[image].file_name, self.notes[image].name)

    def __iter__(self) -> Iterator[ImageRecord]:
        """The records by file name, so that no export depends on what was finished when."""
        for image in sorted(self._journal, key=lambda image: (self.notes[image].file_name, image)):
            found = self.get(image)
            assert found is not None  # it is in the journal
            yield found

    def _claim(self) -> None:
        there = read_settings(self._settings_path)
        queries, self.formats = there.pop("queries", None), there.pop("formats", None)
        if not isinstance(queries, list):
            raise DataError(f"{self._settings_path} says no queries")
        check_settings(self._settings_path.parent, there, self._settings, "masks made")
        self.queries = queries


def _key(row: Row) -> str | None:
    return None if "gone" in row else row["image"]


def _note(row: Row) -> Note:
    file = row.get("file", {})
    return Note(row["file_name"], row["name"], file.get("bytes"), file.get("sha256"))


class Names:
    """File names of images, and names of files made of them, that no two images share."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._names: set[str] = set()

    def keep(self, file_name: str, name: str) -> None:
        """Marks both as taken."""
        self._files.add(file_name)
        self._names.add(name.casefold())

    def free(self, file_name: str, name: str) -> None:
        """Marks both as free again."""
        self._files.discard(file_name)
        self._names.discard(name.casefold())

    def take(self, wanted: str, image: Path) -> tuple[str, str]:
        """(file name, name of what is made of it) of an image that is called `wanted` under what was named.

        The file name is the end of a path that is there: `wanted`, or as much more of the image's path as sets it
        apart. The name has no suffix, no part that is too long for a file system, and where another image has it,
        whatever the letters' case, `-2`, `-3`, … at its end. Neither leads out of the folder it is used in.
        """
        inside = PurePosixPath(*(part for part in PurePosixPath(wanted).parts if part not in ("..", "/")))
        parts = image.parts[1:]
        longer = (PurePosixPath(*parts[-n:]) for n in range(len(inside.parts) + 1, len(parts) + 1))
        file_name = next((str(path) for path in (inside, *longer) if str(path) not in self._files), str(image))
        base = PurePosixPath(*map(_short, inside.with_suffix("").parts))
        name, number = str(base), 1
        while name.casefold() in self._names:
            number += 1
            name = str(base.with_name(f"{base.name}-{number}"))
        self.keep(file_name, name)
        return file_name, name


def _short(part: str) -> str:
    """A part of a path, cut to a length that leaves room for what is put behind it."""
    while len(part.encode(errors="surrogateescape")) > LONGEST_NAME_BYTES:
        part = part[:-1]
    return part


REVIEW, FORMATS = "review", ("label-studio", "labelme")


class ByDoubt:
    """The records with the least sure first, then those of which nothing is known, in the order of their names.

    What is held in memory is a number for each image.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        known = [(one.image, one.confidence) for one in records]
        self._order = [image for image, _ in exports.by_doubt(known, lambda pair: pair[1])]
        self.n_known = sum(confidence is not None for _, confidence in known)

    def __iter__(self) -> Iterator[ImageRecord]:
        for image in self._order:
            found = self._records.get(image)
            assert found is not None  # it is one of the records
            yield found


def write_review(records: ByDoubt, plan: Plan, count: int) -> Path:
    """Writes the `count` most doubtful images under `review/` in the plan's folder; returns it.

    Raises SegrlError where no answer has a confidence.
    """
    if records.n_known == 0:
        raise SegrlError(
            "no answer has a confidence to be sorted by: ask for a vote (--samples 8), or take a segmenter that scores "
            "its masks"
        )
    place = plan.out / REVIEW
    make_directory(place)
    chosen = [one for one, _ in zip(records, range(count), strict=False) if one.confidence is not None]
    for name in FORMATS:
        writer = exports.get(name)(place, plan.queries, plan.style)
        for record in chosen:
            if not writer.is_there(record):
                writer.add(record)
        writer.finish(chosen)
    write_atomically(place / "review.jsonl", [json_line(_line(record)) for record in chosen])
    return place


def _line(record: ImageRecord) -> dict[str, object]:
    answers: Sequence[dict[str, object]] = [
        {
            "query": found.query,
            "status": found.status.value,
            "confidence": found.confidence,
            "objects": found.confidences,
        }
        for found in record.answers
    ]
    return {"image": record.image, "confidence": record.confidence, "answers": answers}
