"""Evaluations of several checkpoints over the same examples, and the variant that quotes the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segrl.evaluation.comparison import check_same, read_finished
from segrl.evaluation.run_dir import EvalDir
from segrl.metrics import Metric, applicable, measure


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


def _best(measured: Mapping[str, Mapping[str, Any]], metric: Metric) -> dict[str, Any]:
    """`{"value": …, "run": …}`, the first run among equals; None each where no run has a value."""
    known = [(found[metric.name]["value"], run) for run, found in measured.items()]
    known = [(value, run) for value, run in known if value is not None]
    sign = -1 if metric.lower_is_better else 1
    value, run = max(known, key=lambda pair: sign * pair[0], default=(None, None))
    return {"value": value, "run": run}
