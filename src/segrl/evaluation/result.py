"""records.jsonl → metrics.json and summary.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from segrl.evaluation.bootstrap import measure
from segrl.evaluation.catalogue import CATALOGUE, LENIENT, Columns, Metric, applicable
from segrl.evaluation.measures import SAME_INSTANCE
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.table import ORDER, TITLES, Table, read_table
from segrl.files import read_rows, write_atomically
from segrl.types import Status

MAX_PARTS = 60
"""A dimension with more parts than this is an identifier, not a slice."""


def write_result(directory: EvalDir) -> dict[str, Any]:
    """Writes metrics.json and summary.json from the records; returns the summary.

    metrics.json depends on the records alone: `n`, `images`, `metrics` (name → value and ci95),
    `statuses`, `failures` (count by kind), `slices` (dimension → part → n, images, metrics, statuses),
    `variants` (name → the same under another published rule), `none_in_words`, `lenient`, `calibration`, `hints` and
    `examples_sha256`. summary.json adds `run` (what run.json says) and `speed`. The summary is written last: where
    it is, all is.
    """
    table = read_table(directory.records)
    found = result(table)
    summary = {**found, "speed": _speed(table, directory), "run": directory.description()}
    for path, numbers in ((directory.metrics, found), (directory.summary, summary)):
        write_atomically(path, json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return summary


def result(table: Table) -> dict[str, Any]:
    """What metrics.json holds of these records."""
    metrics = applicable(table.columns)
    whole = _part(table, np.ones(len(table), dtype=bool), metrics)
    return {
        **whole,
        "failures": {name: count for name, count in whole["statuses"].items() if Status(name).is_failure},
        "none_in_words": _none_in_words(table.columns),
        "lenient": _lenient(table.columns),
        "calibration": calibration(table),
        "hints": hints(table.columns),
        "slices": _slices(table, metrics),
        "variants": _variants(table),
        "examples_sha256": examples_sha256(table),
    }


def examples_sha256(table: Table) -> str:
    """Equal exactly for evaluations of the same examples in the same order."""
    return hashlib.sha256("".join(table.keys).encode()).hexdigest()


def dimensions(table: Table) -> list[str]:
    """The dimensions by which a result is taken apart, in the order of the tables: those with two parts or more."""
    known = list(TITLES)
    ordered = sorted(table.slices, key=lambda name: known.index(name) if name in known else len(known))
    return [name for name in ordered if 2 <= len(set(table.slices[name]) - {""}) <= MAX_PARTS]


def _slices(table: Table, metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    return {
        name: {part: _part(table, rows, metrics) for part, rows in parts(table, name).items()}
        for name in dimensions(table)
    }


def parts(table: Table, dimension: str) -> dict[str, np.ndarray]:
    """Part → which records belong to it, `(n,)` bool, parts in natural order."""
    values = np.array(table.slices[dimension])
    known = ORDER.get(dimension, [])
    found = sorted(set(table.slices[dimension]) - {""}, key=lambda v: (known.index(v) if v in known else len(known), v))
    return {part: values == part for part in found}


def _part(table: Table, rows: np.ndarray, metrics: Sequence[Metric]) -> dict[str, Any]:
    images = [image for image, is_in in zip(table.images, rows, strict=True) if is_in]
    counts = Counter(status for status, is_in in zip(table.statuses, rows, strict=True) if is_in)
    return {
        "n": len(images),
        "images": len(set(images)),
        "metrics": measure(chosen(table.columns, rows), images, metrics),
        "statuses": {status.value: counts[status] for status in Status if counts[status]},
    }


def chosen(columns: Columns, rows: np.ndarray) -> Columns:
    """The columns of some samples."""
    return {name: values[rows] for name, values in columns.items()}


def _variants(table: Table) -> dict[str, Any]:
    """gIoU, cIoU and where it matters precision as other published protocols have them (docs/protocol.md)."""
    overlaps = [metric for metric in CATALOGUE if metric.name in ("giou", "ciou")]
    read = table.columns["failed"] == 0
    first_of_image = _first_of(table.images)
    found = {"first_request_of_each_image": _part(table, first_of_image, overlaps)}
    refs = table.columns["ref_id"]
    if not np.isnan(refs).any():
        found["first_request_of_each_object"] = _part(table, _first_of(refs.tolist()), overlaps)
    there = table.columns["target_area"] > 0
    if not there.all():
        precisions = [metric for metric in CATALOGUE if metric.name.startswith("pr@")]
        found["requests_with_a_target"] = _part(table, there, [*overlaps, *precisions])
    found["failures_left_out"] = _part(table, read, overlaps)
    everything, columns = np.ones(len(table), dtype=bool), table.columns
    forgiving = dataclasses.replace(table, columns=_as_no_target(columns, columns["failed"] == 1))
    found["failures_say_nothing_there"] = _part(forgiving, everything, overlaps)
    in_words = dataclasses.replace(table, columns=_as_no_target(columns, columns["says_none"] == 1))
    found["none_in_words_counts"] = _part(in_words, everything, overlaps)
    if len(table) and not np.isnan(columns["lenient_iou"]).any():
        mended = {**columns, **{name: columns[f"lenient_{name}"] for name in LENIENT}}
        shown = [metric for metric in CATALOGUE if metric.name in ("giou", "ciou", "parse_rate")]
        found["lenient_reading"] = _part(dataclasses.replace(table, columns=mended), everything, shown)
    return found


def _none_in_words(columns: Columns) -> dict[str, int]:
    """Failures whose text says in words that nothing is there, and those of them that are right."""
    said = columns["says_none"] == 1
    return {"n": int(said.sum()), "right": int((said & (columns["target_area"] == 0)).sum())}


def _lenient(columns: Columns) -> dict[str, int] | None:
    """How many answers the lenient reading changes, and how many failures it can read; None where nobody read so."""
    changed = columns["lenient_changed"]
    if not len(changed) or np.isnan(changed).any():
        return None
    read = (columns["failed"] == 1) & (columns["lenient_failed"] == 0)
    return {"changed": int(changed.sum()), "failures_read": int(read.sum())}


BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Agreement by which voted objects are put together: above each number, up to the next."""


def calibration(table: Table) -> dict[str, Any] | None:
    """Whether the agreement of a vote says how good an object's mask is; None without a vote.

    `n`, `right` (the share with IoU of 0.5 or more), `auroc` (the chance that agreement is higher for a right object
    than for a wrong one, ties half; null where there are none of either), and `bins`: the objects by agreement, each
    with `n`, the mean `agreement`, and `iou` and `right` with 95% intervals over images.
    """
    places, agreement, ious = table.objects.T
    if not len(places):
        return None
    right = ious >= SAME_INSTANCE
    images = [table.images[int(place)] for place in places]
    ratios = [
        Metric("iou", "", "", lambda c: [(c["iou"], np.ones(len(c["iou"])))]),
        Metric("right", "", "", lambda c: [(c["right"], np.ones(len(c["right"])))]),
    ]
    columns, bins = {"iou": ious, "right": right.astype(float)}, []
    for low, high in pairwise(BINS):
        rows = (agreement > low) & (agreement <= high)
        if rows.any():
            own = [image for image, is_in in zip(images, rows, strict=True) if is_in]
            found = measure(chosen(columns, rows), own, ratios)
            bins.append({"above": low, "to": high, "n": int(rows.sum()), "agreement": agreement[rows].mean(), **found})
    return {"n": len(places), "right": float(right.mean()), "auroc": _auroc(agreement, right), "bins": bins}


def _auroc(values: np.ndarray, right: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return None
    return float((rankdata(values)[right].sum() - hits * (hits + 1) / 2) / (hits * misses))


SIGNS, ANSWERS = 0.2, 3
"""A hint needs this share of the answers with numbers, and so many of them."""


def hints(columns: Columns) -> list[str]:
    """What the numbers of the answers suggest about their frame, one line each, with the option that would mend it."""
    found = []
    for name, what in (
        (
            "beyond",
            "write numbers beyond the image: policy.frame (original, resized, smart_resize, relative_1000) says what "
            "the numbers mean",
        ),
        (
            "fractions",
            "write all numbers between 0 and 1: if they are shares of the sides, policy.frame=relative_1",
        ),
    ):
        known = columns[name][~np.isnan(columns[name])]
        if known.sum() >= ANSWERS and known.mean() >= SIGNS:
            found.append(f"{int(known.sum())} of {len(known)} answers {what}")
    return found


def _first_of(values: Sequence[Any]) -> np.ndarray:
    """`(n,)` bool: whether a value comes for the first time."""
    first = {value: place for place, value in reversed(list(enumerate(values)))}
    return np.array([first[value] == place for place, value in enumerate(values)], dtype=bool)


def _as_no_target(columns: Columns, rows: np.ndarray) -> Columns:
    """Columns in which the failed answers of `rows` say "nothing there"."""
    right = rows & (columns["target_area"] == 0)
    return {**columns, "iou": np.where(right, 1.0, columns["iou"])}


def _speed(table: Table, directory: EvalDir) -> dict[str, Any]:
    """How fast it went: `samples_per_second` over the time in which processes worked, seconds of the policy
    alone per answer with an interval, and the most memory that one process held (MiB)."""
    sessions = read_rows(directory.sessions)
    seconds = busy_seconds([(row["begun"], row["ended"]) for row in sessions])
    samples = sum(row["samples"] for row in sessions)
    per_answer = Metric("seconds", "", "", lambda c: [(c["seconds"], np.ones(len(c["seconds"])))])
    peaks = [row["peak_memory_mib"] for row in sessions if row["peak_memory_mib"] is not None]
    return {
        "samples_per_second": samples / seconds if seconds else None,
        "samples": samples,
        "seconds": seconds,
        "processes": max((row["world"] for row in sessions), default=1),
        "policy_seconds_per_answer": measure(table.columns, table.images, [per_answer])["seconds"],
        "peak_memory_mib": max(peaks, default=None),
    }


def busy_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the time that at least one of the spans (begin, end) covers.

    >>> busy_seconds([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def metrics_of(directory: EvalDir) -> Mapping[str, Any]:
    """What metrics.json says, written first if it is missing."""
    summary_of(directory)
    return dict(json.loads(directory.metrics.read_text(encoding="utf-8")))


def summary_of(directory: EvalDir) -> Mapping[str, Any]:
    """What summary.json says, written first if it is missing."""
    if not directory.summary.exists():
        return write_result(directory)
    return dict(json.loads(directory.summary.read_text(encoding="utf-8")))


def with_baseline(directory: EvalDir) -> Mapping[str, Any]:
    """What summary.json says, with the metrics of the query sent as it is under `baseline` where that was measured."""
    summary, plain = summary_of(directory), directory.baseline
    return {**summary, "baseline": summary_of(plain)["metrics"]} if plain.is_finished else summary
