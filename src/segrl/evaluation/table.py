"""Records as numbers: what metrics, slices and comparisons need of each, read one line at a time.

Ten thousand records take a few megabytes this way, and the masks and texts stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from segrl.evaluation.catalogue import LENIENT, MEASURED, SCORED, Columns
from segrl.evaluation.fingerprint import example_key
from segrl.evaluation.records import EvalRecord, iter_records
from segrl.evaluation.slices import slices
from segrl.types import Status


@dataclass(frozen=True)
class Table:
    """n records as numbers.

    keys: what makes each example this one (id, image, query, truth). ids: their names. images: image ids. statuses.
    texts: a hash of each answer's text, masks: of its mask. slices: dimension → value of each record.
    columns: `segrl.evaluation.catalogue.Columns`.
    """

    keys: tuple[str, ...]
    ids: tuple[str, ...]
    images: tuple[str, ...]
    statuses: tuple[Status, ...]
    texts: tuple[int, ...]
    masks: tuple[int, ...]
    slices: Mapping[str, tuple[str, ...]]
    columns: Columns

    def __len__(self) -> int:
        return len(self.ids)


def read_table(path: Path) -> Table:
    """The numbers of a file of records, in its order. Raises DataError as `iter_records` does."""
    return tabulate(iter_records(path))


def tabulate(records: Iterable[EvalRecord]) -> Table:
    """The numbers of records, in their order."""
    rows = [_row(record) for record in records]
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
    measured = [float(record.measures.get(name, np.nan)) for name in MEASURED]
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
    names = (*SCORED, *MEASURED, *(f"lenient_{name}" for name in LENIENT), "lenient_changed", "says_none")
    stacked = np.stack(rows) if rows else np.zeros((0, len(names)))
    return {name: np.ascontiguousarray(stacked[:, i]) for i, name in enumerate(names)}
