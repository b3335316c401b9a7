"""What an evaluation keeps of each example, and its file: one JSON object per line.

{"id": "tiny-7-12", "image_id": "…", "tags": {"kind": "size"}, "query": "the largest disc",
 "text": "<think>…", "status": "ok", "reasoning": "…", "detail": "",
 "prompts": [{"box_xyxy": [10, 20, 60, 70], "points_xy": [[30, 40]], "labels": [1]}],
 "mask": {"size": [112, 112], "counts": "…"}, "truth": {…}, "iou": 0.81, "s_measure": 0.9,
 "intersection": 900, "union": 1111, "target_area": 1000, "predicted_area": 1011,
 "tokens": 48, "seconds": 0.21, "truncated": false,
 "measures": {"pixels": 12544, "targets": 1, "boundary_iou": 0.7, "box_iou": 0.8}, "samples": [],
 "says_none": false, "lenient": {}, "turns": [], "votes": null, "object_ious": []}
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segrl.errors import DataError
from segrl.files import json_line, write_atomically
from segrl.masks import Rle
from segrl.types import ORIGINAL, MaskPrompt, Score, Status, Votes


@dataclass(frozen=True)
class EvalRecord:
    """One answered and scored example.

    prompts: in original pixels, clipped to the image. mask: the union of the answer's masks, truth:
    the union of the targets, both at the original size. status and iou to predicted_area: as
    `segrl.types.Score`. tokens and seconds: length of the completion and the time it took. measures:
    further numbers (`segrl.evaluation.measures`), those that apply. samples: every text, where the
    answer was voted from several or looked at twice. says_none: a failure whose text says in words that nothing is
    there. lenient: what the lenient reading of the text gives, where that is something else (status, the numbers of a
    Score and `repairs`); {} where it is the same, None where nobody read it so. turns: of a conversation, as
    `segrl.turns.to_row` has them. votes: of an answer that was voted from several; object_ious: of each of its masks
    the IoU with the target that it fits best, 0 without a target.
    """

    id: str
    image_id: str
    tags: Mapping[str, str]
    query: str
    text: str
    status: Status
    reasoning: str | None
    detail: str
    prompts: tuple[MaskPrompt, ...]
    mask: Rle
    truth: Rle
    iou: float
    s_measure: float
    intersection: int
    union: int
    target_area: int
    predicted_area: int
    tokens: int
    seconds: float
    truncated: bool
    measures: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    says_none: bool = False
    lenient: Mapping[str, Any] | None = None
    turns: tuple[Mapping[str, Any], ...] = ()
    votes: Votes | None = None
    object_ious: tuple[float, ...] = ()

    @property
    def kind(self) -> str | None:
        """The kind of query, the slice of every table; None where the data set has no kinds."""
        return self.tags.get("kind")

    @property
    def score(self) -> Score:
        """The record's numbers as scoring gave them."""
        return Score(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Score)})

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        own = {
            "tags": dict(self.tags),
            "status": self.status.value,
            "prompts": [prompt.to_json() for prompt in self.prompts],
            "measures": dict(self.measures),
            "votes": None if self.votes is None else self.votes.to_json(),
        }
        return plain | own

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EvalRecord:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for a row that is no record."""
        prompts = tuple(MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"])
        status = Status(row["status"])
        votes = None if row.get("votes") is None else Votes.from_json(row["votes"])
        lists = {name: tuple(row.get(name, ())) for name in ("samples", "turns", "object_ious")}
        return cls(**{**row, **lists, "status": status, "prompts": prompts, "votes": votes})


def write_jsonl(records: Iterable[EvalRecord], path: Path) -> None:
    """Write the records, one line each; the file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json_line(record.to_json()) for record in records))


def read_jsonl(path: Path) -> list[EvalRecord]:
    """Read what `write_jsonl` wrote. Raises DataError naming the file, and the line that is no record."""
    return list(iter_records(path))


def iter_records(path: Path) -> Iterator[EvalRecord]:
    """The records of a file, one at a time. Raises DataError as `read_jsonl` does."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield EvalRecord.from_json(json.loads(line))
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise DataError(f"{path}, line {number}, is no evaluation record: {error!r}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the evaluation {path}: {error}") from error
