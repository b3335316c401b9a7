"""Evaluations of the same examples compared: of two what changed, of several the best of each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segrl.errors import DataError
from segrl.evaluation.bootstrap import measure, measure_difference
from segrl.evaluation.catalogue import Metric, applicable
from segrl.evaluation.result import chosen, dimensions, parts
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.table import Table, read_table
from segrl.text import differences


def compare_runs(run_a: Path | str, run_b: Path | str) -> dict[str, Any]:
    """What is different in run B from run A, as JSON holds it.

    `n`, `images`, `metrics` (name → a, b, difference = b − a, ci95 from a paired bootstrap over images),
    `slices` (dimension → part → the same), `changed` (shares of answers whose `text`, `mask` and
    `status` differ) and `settings` (what differs in run.json, `name: value of A → value of B`). Raises DataError
    if a directory holds no finished evaluation, or the two hold other examples.
    """
    dirs = [EvalDir(Path(run)) for run in (run_a, run_b)]
    a, b = tables = [read_finished(directory) for directory in dirs]
    check_same(a, b, dirs)
    metrics = [metric for metric in applicable(a.columns) if metric in applicable(b.columns)]
    everything = np.ones(len(a), dtype=bool)
    return {
        **_part(a, b, everything, metrics),
        "slices": {
            name: {part: _part(a, b, rows, metrics) for part, rows in parts(a, name).items()} for name in dimensions(a)
        },
        "changed": {
            name: float(np.mean([x != y for x, y in zip(*(getattr(t, key) for t in tables), strict=True)]))
            for name, key in (("text", "texts"), ("mask", "masks"), ("status", "statuses"))
        },
        "settings": {
            name: f"{one!r} → {other!r}"
            for name, one, other in differences(dirs[0].description(), dirs[1].description())
        },
    }


def best_of_checkpoints(runs: Sequence[Path | str]) -> dict[str, Any]:
    """What each run measured, and of each metric the best over the runs, as JSON holds it.

    `n`, `images`, `runs` (directory → metrics with their intervals) and `best_of_checkpoints` (metric → value and
    the run it is of). The best has no interval: it was chosen on the examples that it is quoted for. Raises
    DataError as `compare_runs` does, for any two of the runs.
    """
    dirs = [EvalDir(Path(run)) for run in runs]
    tables = [read_finished(directory) for directory in dirs]
    for other, directory in zip(tables[1:], dirs[1:], strict=True):
        check_same(tables[0], other, [dirs[0], directory])
    shared = [applicable(table.columns) for table in tables]
    metrics = [metric for metric in shared[0] if all(metric in known for known in shared)]
    measured = {
        str(directory.path): measure(table.columns, table.images, metrics)
        for directory, table in zip(dirs, tables, strict=True)
    }
    return {
        "n": len(tables[0]),
        "images": len(set(tables[0].images)),
        "runs": measured,
        "best_of_checkpoints": {metric.name: _best(measured, metric) for metric in metrics},
    }


def read_finished(directory: EvalDir) -> Table:
    """The numbers of an evaluation. Raises DataError if there is none, or it is not finished."""
    directory.description()
    if not directory.records.exists():
        raise DataError(f"the evaluation in {directory.path} is not finished: start its command again, it goes on")
    return read_table(directory.records)


def check_same(a: Table, b: Table, dirs: Sequence[EvalDir]) -> None:
    """Raises DataError, naming the first example that differs."""
    if len(a) != len(b):
        found = f"{dirs[0].path} has {len(a)}, {dirs[1].path} has {len(b)}"
        raise DataError(f"the two evaluations hold other examples ({found}): only runs over the same can be compared")
    for place, (one, other) in enumerate(zip(a.keys, b.keys, strict=True)):
        if one != other:
            names = a.ids[place], b.ids[place]
            what = f"{names[0]} and {names[1]}" if names[0] != names[1] else f"{names[0]}, with other contents"
            raise DataError(
                f"the two evaluations hold other examples (number {place}: {what}): "
                "only runs over the same can be compared"
            )


def _part(a: Table, b: Table, rows: np.ndarray, metrics: Sequence[Metric]) -> dict[str, Any]:
    images = [image for image, is_in in zip(a.images, rows, strict=True) if is_in]
    found = measure_difference(chosen(a.columns, rows), chosen(b.columns, rows), images, metrics)
    return {"n": len(images), "images": len(set(images)), "metrics": found}


def _best(measured: Mapping[str, Mapping[str, Any]], metric: Metric) -> dict[str, Any]:
    """`{"value": …, "run": …}`, the first run among equals; None each where no run has a value."""
    known = [(found[metric.name]["value"], run) for run, found in measured.items()]
    known = [(value, run) for value, run in known if value is not None]
    sign = -1 if metric.lower_is_better else 1
    value, run = max(known, key=lambda pair: sign * pair[0], default=(None, None))
    return {"value": value, "run": run}
