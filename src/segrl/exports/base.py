"""What every export is, a file for each image or one file for all, and the record of an image that it is given.

A record is a line of a JSON Lines file:

{"image": "/data/photos/a/dog.jpg", "file_name": "a/dog.jpg", "name": "a/dog", "size_wh": [640, 480],
 "file": {"bytes": 81234, "modified_ns": 1764412345000000000, "sha256": "…"},
 "answers": [{"query": "the dog", "status": "ok", "text": "<think>…", "reasoning": "…", "detail": "", "repairs": [],
              "prompts": [{"box_xyxy": [10, 20, 60, 70], "points_xy": [[30, 40]], "labels": [1]}],
              "masks": [{"size": [480, 640], "counts": "…"}], "scores": [0.91]}]}
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from segrl.images import AS_IT_IS, PictureOptions, read_image
from segrl.masks import Rle, to_rle
from segrl.types import ORIGINAL, MaskPrompt, Status, Votes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from segrl.types import Answer


T = TypeVar("T")


class Result(Protocol):
    """What a record is made from: a `segrl.Result`."""

    @property
    def image(self) -> Image.Image: ...
    @property
    def query(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def answer(self) -> Answer: ...
    @property
    def masks(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray | None: ...
    @property
    def votes(self) -> Votes | None: ...


def least_confidence(status: Status, votes: Votes | None, scores: Iterable[float] | None) -> float | None:
    """How sure an answer is as a whole: 0 for a failure, else the lowest of its masks, or the share of a vote that says
    "nothing there"; None where nothing is known."""
    if status.is_failure:
        return 0.0
    return votes.confidence if votes is not None else min(scores or (), default=None)


def by_doubt(answers: Iterable[T], confidence: Callable[[T], float | None]) -> list[T]:
    """The least sure first, then those of which nothing is known; equal ones in their order."""
    known = [(one, confidence(one)) for one in answers]
    return [one for one, sure in sorted(known, key=lambda pair: float("inf") if pair[1] is None else pair[1])]


@dataclass(frozen=True)
class Found:
    """The answer to one query. masks: one per object, at the image's size; prompts in original pixels.

    repairs: what a lenient reading mended or left out. scores: the IoU that the segmenter expects of each mask;
    None from one that expects nothing. votes: how far several samples agree, where there were several.
    """

    query: str
    status: Status
    text: str
    reasoning: str | None
    detail: str
    prompts: tuple[MaskPrompt, ...]
    masks: tuple[Rle, ...]
    scores: tuple[float, ...] | None = None
    repairs: tuple[str, ...] = ()
    votes: Votes | None = None

    @classmethod
    def from_result(cls, result: Result) -> Found:
        """What a pipeline said."""
        answer = result.answer
        masks = tuple(to_rle(mask) for mask in result.masks)
        scores = None if result.scores is None else tuple(round(float(score), 4) for score in result.scores)
        texts = (result.text, answer.reasoning, answer.detail)
        return cls(result.query, answer.status, *texts, answer.prompts, masks, scores, answer.repairs, result.votes)

    @property
    def confidences(self) -> tuple[float, ...] | None:
        """Of each mask: the share of a vote's samples that hold it, else the segmenter's score; None for neither."""
        return self.scores if self.votes is None else tuple(round(one, 4) for one in self.votes.agreement)

    @property
    def confidence(self) -> float | None:
        """Of the answer as a whole."""
        return least_confidence(self.status, self.votes, self.scores)

    def objects(self) -> Iterator[tuple[Rle, float | None]]:
        """Each mask with its confidence."""
        yield from zip(self.masks, self.confidences or [None] * len(self.masks), strict=True)

    def only(self, kept: Sequence[int], said: str) -> Found:
        """The answer with the masks of these places alone. said: why, for `repairs`."""
        votes = self.votes
        if votes is not None:
            votes = dataclasses.replace(votes, agreement=tuple(votes.agreement[i] for i in kept))
        return dataclasses.replace(
            self,
            masks=tuple(self.masks[i] for i in kept),
            prompts=tuple(self.prompts[i] for i in kept),
            scores=None if self.scores is None else tuple(self.scores[i] for i in kept),
            repairs=(*self.repairs, said),
            votes=votes,
        )

    def to_json(self) -> dict[str, Any]:
        """The answer as a record's line holds it."""
        return {
            "query": self.query,
            "status": self.status.value,
            "text": self.text,
            "reasoning": self.reasoning,
            "detail": self.detail,
            "repairs": list(self.repairs),
            "prompts": [prompt.to_json() for prompt in self.prompts],
            "masks": list(self.masks),
            **({} if self.scores is None else {"scores": list(self.scores)}),
            **({} if self.votes is None else {"votes": self.votes.to_json()}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Found:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for a row that is no answer."""
        prompts = tuple(MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"])
        texts = (row["text"], row["reasoning"], row["detail"])
        scores = None if row.get("scores") is None else tuple(map(float, row["scores"]))
        masks, repairs = tuple(row["masks"]), tuple(row.get("repairs", ()))
        votes = None if row.get("votes") is None else Votes.from_json(row["votes"])
        return cls(row["query"], Status(row["status"]), *texts, prompts, masks, scores, repairs, votes)


@dataclass(frozen=True)
class FileState:
    """A file as it was read, so that another one under its name is noticed, and the same one under another name."""

    n_bytes: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Of the file that lies there now. Raises OSError."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            return cls(found.st_size, found.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())

    def is_still(self, path: Path) -> bool:
        """Whether the same content lies at `path`: a file of that size and time, or else of that hash."""
        found = path.stat()
        if found.st_size != self.n_bytes:
            return False
        return found.st_mtime_ns == self.modified_ns or FileState.of(path).sha256 == self.sha256

    def to_json(self) -> dict[str, Any]:
        """As a record's line holds it."""
        return {"bytes": self.n_bytes, "modified_ns": self.modified_ns, "sha256": self.sha256}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> FileState:
        """Inverse of `to_json`."""
        return cls(int(row["bytes"]), int(row["modified_ns"]), str(row["sha256"]))


@dataclass(frozen=True)
class ImageRecord:
    """One image with all its answers.

    image: where the file lies. file_name: how exports call it, a path that is there, unique in an export. name:
    what files made of it are called (a relative path without suffix), unique as well. size_wh: with the EXIF
    orientation applied, the size of every mask. file: the file that was read; None in records of segrl 0.1.0's
    first form, which did not keep it.
    """

    image: str
    file_name: str
    name: str
    size_wh: tuple[int, int]
    answers: tuple[Found, ...]
    file: FileState | None = None

    @property
    def queries(self) -> tuple[str, ...]:
        """What was asked about it."""
        return tuple(found.query for found in self.answers)

    @property
    def confidence(self) -> float | None:
        """The lowest of its answers'; None where none is known."""
        return min((one for found in self.answers if (one := found.confidence) is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """The record as its line holds it."""
        return {
            "image": self.image,
            "file_name": self.file_name,
            "name": self.name,
            "size_wh": list(self.size_wh),
            **({} if self.file is None else {"file": self.file.to_json()}),
            "answers": [found.to_json() for found in self.answers],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ImageRecord:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for a row that is no record."""
        width, height = row["size_wh"]
        answers = tuple(map(Found.from_json, row["answers"]))
        file = FileState.from_json(row["file"]) if "file" in row else None
        return cls(row["image"], row["file_name"], row["name"], (int(width), int(height)), answers, file)


def record(
    image: str, results: Sequence[Result], *, file_name: str, name: str, file: FileState | None = None
) -> ImageRecord:
    """The record of one image from its results, at least one. Raises ValueError if their images differ in size."""
    sizes = {result.image.size for result in results}
    if len(sizes) != 1:
        raise ValueError(f"the results of one image have one size, not {sorted(sizes)}")
    return ImageRecord(image, file_name, name, sizes.pop(), tuple(map(Found.from_result, results)), file)


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


def image_as_png(image: Path, pictures: PictureOptions) -> bytes:
    """What we read of an image file, as PNG, for a tool that does not read its kind. Raises DataError."""
    file = io.BytesIO()
    read_image(image, pictures=pictures).save(file, "PNG")
    return file.getvalue()
