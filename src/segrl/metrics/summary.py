"""The four headline metrics of a run, their intervals, and the difference between two runs.

gIoU: mean of the samples' IoU. cIoU: sum of intersections over sum of unions (both as LISA defines
them, arXiv 2308.00692, section 4.1). S-measure: mean of the samples' (Fan et al., ICCV 2017). Parse
rate: share of answers that could be read, OK or NO_TARGET. Failures have been scored already
(`segrl.scoring.score`: 0, and in cIoU a union of the truth's area), so nothing is left out here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segrl.metrics.bootstrap import bootstrap_ci, paired_bootstrap, ratio
from segrl.types import Score, Status

METRICS = ("giou", "ciou", "s_measure", "parse_rate")
"""Names of the metrics of `summarize`, each in [0, 1] and better when larger."""


@dataclass(frozen=True)
class Sample:
    """A score and what it is grouped by: the image (drawn together) and the kind of query (a slice)."""

    score: Score
    image_id: str
    kind: str | None = None


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """Metrics of one run, as JSON holds them.

    `n`; each of METRICS with its `…_ci95` ([low, high] over images); `by_status` (count of every
    status that occurs); `by_kind` (the same without `by_kind`, per kind of query that occurs, in order
    of first appearance). Undefined values are None: every mean with n = 0, cIoU where all unions
    are empty, an interval with fewer than two images.
    """
    return _metrics(samples) | {"by_kind": {kind: _metrics(part) for kind, part in by_kind(samples).items()}}


def compare(before: Sequence[Sample], after: Sequence[Sample]) -> dict[str, Any]:
    """What changed between two runs over the same samples in the same order, as JSON holds it.

    `n`, and for each of METRICS `…_gain` (after − before) with `…_gain_ci95` from a paired bootstrap
    over images; `by_kind` as in `summarize`. Raises ValueError if the samples do not pair up.
    """
    if [(s.image_id, s.kind) for s in before] != [(s.image_id, s.kind) for s in after]:
        raise ValueError("the two runs hold other samples, or the same in another order")
    old, new = by_kind(before), by_kind(after)
    return _gains(before, after) | {"by_kind": {kind: _gains(old[kind], new[kind]) for kind in old}}


def by_kind(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples that have a kind, apart by kind, in order of first appearance."""
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.kind is not None:
            parts.setdefault(sample.kind, []).append(sample)
    return parts


def _metrics(samples: Sequence[Sample]) -> dict[str, Any]:
    images = [sample.image_id for sample in samples]
    counts = Counter(sample.score.status for sample in samples)
    out: dict[str, Any] = {"n": len(samples)}
    for name in METRICS:
        above, below = _columns(name, samples)
        interval = bootstrap_ci(above, below, clusters=images)
        out[name] = ratio(above, below)
        out[f"{name}_ci95"] = None if interval is None else list(interval)
    return out | {"by_status": {status.value: counts[status] for status in Status if counts[status]}}


def _gains(before: Sequence[Sample], after: Sequence[Sample]) -> dict[str, Any]:
    images = [sample.image_id for sample in before]
    out: dict[str, Any] = {"n": len(before)}
    for name in METRICS:
        (a0, b0), (a1, b1) = _columns(name, before), _columns(name, after)
        old, new = ratio(a0, b0), ratio(a1, b1)
        interval = paired_bootstrap(a0, a1, before_denominators=b0, after_denominators=b1, clusters=images)
        out[f"{name}_gain"] = None if old is None or new is None else new - old
        out[f"{name}_gain_ci95"] = None if interval is None else list(interval)
    return out


def _columns(metric: str, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """`(n,)` numerators and denominators whose ratio of sums is the metric."""
    scores = [sample.score for sample in samples]
    if metric == "ciou":
        return _array(s.intersection for s in scores), _array(s.union for s in scores)
    if metric == "parse_rate":
        return _array(not s.status.is_failure for s in scores), np.ones(len(scores))
    return _array(s.iou if metric == "giou" else s.s_measure for s in scores), np.ones(len(scores))


def _array(values: Any) -> np.ndarray:
    return np.fromiter(values, dtype=np.float64)
