"""Records as numbers: what metrics, slices and comparisons need of each, read one line at a time.

Ten thousand records take a few megabytes this way, and the masks and texts stay on disk.

Slices take a result apart by what the request was like, and what it was about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.evaluation.catalogue import LENIENT, MEASURED, SCORED, TURNS, Columns
from segrl.evaluation.records import EvalRecord, iter_records
from segrl.evaluation.settings import example_key
from segrl.types import Status

if TYPE_CHECKING:
    from segrl.evaluation.records import EvalRecord


QUERY_WORDS: tuple[tuple[int | None, str], ...] = (
    (3, "1–3 words"),
    (7, "4–7 words"),
    (15, "8–15 words"),
    (None, "16 words or more"),
)
OBJECT_SIZE: tuple[tuple[float | None, str], ...] = (
    (0.01, "under 1% of the image"),
    (0.05, "1–5%"),
    (0.2, "5–20%"),
    (None, "20% or more"),
)
NOTHING = "nothing there"

TITLES = {
    "kind": "kind",
    "query_length": "length of the query",
    "object_size": "size of the object",
    "objects": "number of objects",
    "place": "place in the image",
}
"""The dimensions in the order of the tables; further tags of the data set come after them, under their own names."""

ORDER = {
    "query_length": [name for _, name in QUERY_WORDS],
    "object_size": [NOTHING, *(name for _, name in OBJECT_SIZE)],
    "objects": ["none", "1", "2", "3", "4 or more"],
}
"""Parts in their natural order; those of other dimensions stand by name."""


def slices(record: EvalRecord) -> Mapping[str, str]:
    """The part of each dimension that a record belongs to.

    `query_length`, `object_size` (share of the pixels that count), `objects`, `place` (which ninth of the
    image holds the centre of the true box), and the data set's tags. What is not known is left out.
    """
    found = {"query_length": _length(len(record.query.split()))}
    pixels, targets = record.measures.get("pixels"), record.measures.get("targets")
    if pixels:
        share = record.target_area / pixels
        found["object_size"] = NOTHING if record.target_area == 0 else _below(share)
    if targets is not None:
        found["objects"] = "none" if targets == 0 else f"{targets:.0f}" if targets < 4 else "4 or more"
    return found | {"place": _ninth(record)} | dict(record.tags)


def _length(words: int) -> str:
    return next(name for bound, name in QUERY_WORDS if bound is None or words <= bound)


def _below(share: float) -> str:
    return next(name for bound, name in OBJECT_SIZE if bound is None or share < bound)


def _ninth(record: EvalRecord) -> str:
    """Which ninth of the image holds the centre of the true box, read from the run lengths without drawing them."""
    from pycocotools import mask as coco

    height, width = record.truth["size"]
    x, y, w, h = coco.toBbox({"size": [height, width], "counts": record.truth["counts"].encode("ascii")})
    if w == 0 or h == 0:
        return NOTHING
    row = ("top", "middle", "bottom")[min(int(3 * (y + h / 2) / height), 2)]
    column = ("left", "centre", "right")[min(int(3 * (x + w / 2) / width), 2)]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


@dataclass(frozen=True)
class Table:
    """n records as numbers.

    keys: what makes each example this one (id, image, query, truth). ids: their names. images: image ids. statuses.
    texts: a hash of each answer's text, masks: of its mask. slices: dimension → value of each record.
    columns: `segrl.evaluation.catalogue.Columns`. objects: of every mask that was voted the place of its record,
    the agreement on it and its IoU with the target that it fits best, `(K, 3)` float64.
    """

    keys: tuple[str, ...]
    ids: tuple[str, ...]
    images: tuple[str, ...]
    statuses: tuple[Status, ...]
    texts: tuple[int, ...]
    masks: tuple[int, ...]
    slices: Mapping[str, tuple[str, ...]]
    columns: Columns
    objects: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def read_table(path: Path) -> Table:
    """The numbers of a file of records, in its order. Raises DataError as `iter_records` does."""
    return tabulate(iter_records(path))


def tabulate(records: Iterable[EvalRecord]) -> Table:
    """The numbers of records, in their order."""
    rows, objects = [], list[tuple[float, float, float]]()
    for place, record in enumerate(records):
        rows.append(_row(record))
        agreement = () if record.votes is None else record.votes.agreement
        objects += [(float(place), *pair) for pair in zip(agreement, record.object_ious, strict=True)]
    dimensions = list(dict.fromkeys(name for row in rows for name in row.slices))
    return Table(
        keys=tuple(row.key for row in rows),
        ids=tuple(row.id for row in rows),
        images=tuple(row.image for row in rows),
        statuses=tuple(row.status for row in rows),
        texts=tuple(row.text for row in rows),
        masks=tuple(row.mask for row in rows),
        slices={name: tuple(row.slices.get(name, "") for row in rows) for name in dimensions},
        columns=_columns([row.numbers for row in rows]),
        objects=np.array(objects).reshape(-1, 3),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    id: str
    image: str
    status: Status
    text: int
    mask: int
    slices: Mapping[str, str]
    numbers: np.ndarray


def _row(record: EvalRecord) -> _Row:
    return _Row(
        key=example_key(record.id, record.image_id, record.query, record.truth["counts"]),
        id=record.id,
        image=intern(record.image_id),
        status=record.status,
        text=hash((record.text, record.samples)),
        mask=hash(record.mask["counts"]),
        slices={intern(name): intern(value) for name, value in slices(record).items()},
        numbers=_numbers(record),
    )


def _numbers(record: EvalRecord) -> np.ndarray:
    own: dict[str, Any] = {
        "failed": record.status.is_failure,
        "said_none": record.status is Status.NO_TARGET,
    }
    scored = {name: float(own[name]) if name in own else float(getattr(record, name)) for name in SCORED}
    measured = [float(record.measures.get(name, np.nan)) for name in (*MEASURED, *TURNS)]
    return np.array([*scored.values(), *measured, *_lenient(record, scored), record.says_none])


def _lenient(record: EvalRecord, scored: Mapping[str, float]) -> list[float]:
    """The numbers LENIENT, and whether the reading changed anything."""
    if record.lenient is None:
        return [np.nan] * (len(LENIENT) + 1)
    if not record.lenient:
        return [*(scored[name] for name in LENIENT), 0.0]
    found = {**record.lenient, "failed": Status(record.lenient["status"]).is_failure}
    return [*(float(found[name]) for name in LENIENT), 1.0]


def _columns(rows: Sequence[np.ndarray]) -> Columns:
    names = (*SCORED, *MEASURED, *TURNS, *(f"lenient_{name}" for name in LENIENT), "lenient_changed", "says_none")
    stacked = np.stack(rows) if rows else np.zeros((0, len(names)))
    return {name: np.ascontiguousarray(stacked[:, i]) for i, name in enumerate(names)}
