"""Two evaluations of the same examples: what changed, metric by metric and part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segrl.errors import DataError
from segrl.evaluation.result import chosen, dimensions, parts
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.table import Table, read_table
from segrl.metrics import Metric, applicable, measure_difference


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
        "settings": dict(_settings(dirs[0].description(), dirs[1].description())),
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


def _settings(a: Mapping[str, Any], b: Mapping[str, Any], name: str = "") -> list[tuple[str, str]]:
    found = []
    for key in dict.fromkeys([*a, *b]):
        one, other, path = a.get(key), b.get(key), f"{name}.{key}" if name else key
        if isinstance(one, dict) and isinstance(other, dict):
            found += _settings(one, other, path)
        elif one != other:
            found.append((path, f"{one!r} → {other!r}"))
    return found
