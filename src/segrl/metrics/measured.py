"""Columns of numbers → every metric of the catalogue with its interval, and the difference between two runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from segrl.metrics.bootstrap import count_clusters, percentile_interval, ratio, resampled_ratios
from segrl.metrics.catalogue import Columns, Metric


def measure(columns: Columns, images: Sequence[Hashable], metrics: Sequence[Metric]) -> dict[str, Any]:
    """`{name: {"value": …, "ci95": [low, high]}}` of samples; None for what is undefined.

    images: `(n,)` ids; samples of one image are drawn together, and fewer than two images give no
    interval.
    """
    stack = _Stack(metrics, columns)
    drawn = _draw([stack], images)
    return {
        metric.name: {"value": stack.value(i), "ci95": _ends(None if drawn is None else stack.statistic(drawn[0], i))}
        for i, metric in enumerate(metrics)
    }


def measure_difference(
    before: Columns, after: Columns, images: Sequence[Hashable], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """`{name: {"a", "b", "difference", "ci95"}}` of two runs over the same samples in the same order.

    difference: b − a; ci95: its interval from a bootstrap that draws the same images for both, so that
    what makes an image easy or hard cancels.
    """
    a, b = _Stack(metrics, before), _Stack(metrics, after)
    drawn = _draw([a, b], images)
    out = {}
    for i, metric in enumerate(metrics):
        old, new = a.value(i), b.value(i)
        change = None if drawn is None else b.statistic(drawn[1], i) - a.statistic(drawn[0], i)
        difference = None if old is None or new is None else new - old
        out[metric.name] = {"a": old, "b": new, "difference": difference, "ci95": _ends(change)}
    return out


class _Stack:
    """The ratios of several metrics side by side: above and below `(n, K)`, and which columns each metric owns."""

    def __init__(self, metrics: Sequence[Metric], columns: Columns) -> None:
        parts = [list(metric.ratios(columns)) for metric in metrics]
        ends = np.cumsum([0, *map(len, parts)])
        self._owned = [slice(first, last) for first, last in pairwise(ends)]
        flat = [pair for part in parts for pair in part]
        self.above, self.below = (np.stack([pair[side] for pair in flat], axis=1) for side in (0, 1))

    def value(self, metric: int) -> float | None:
        """The metric over all samples."""
        owned = self._owned[metric]
        ratios = [ratio(*pair) for pair in zip(self.above[:, owned].T, self.below[:, owned].T, strict=True)]
        return max((value for value in ratios if value is not None), default=None)

    def statistic(self, drawn: np.ndarray, metric: int) -> np.ndarray:
        """The metric in each resample of `(R, K)` ratios, `(R,)`."""
        return np.asarray(drawn[:, self._owned[metric]].max(axis=1))


def _draw(stacks: Sequence[_Stack], images: Sequence[Hashable]) -> list[np.ndarray] | None:
    """The ratios of each stack in the same resamples; None with fewer than two images."""
    if count_clusters(images) < 2:
        return None
    above, below = (np.concatenate([getattr(s, side) for s in stacks], axis=1) for side in ("above", "below"))
    drawn = resampled_ratios(above, below, clusters=images)
    return np.split(drawn, np.cumsum([s.above.shape[1] for s in stacks])[:-1], axis=1)


def _ends(drawn: np.ndarray | None) -> list[float] | None:
    interval = None if drawn is None else percentile_interval(drawn)
    return None if interval is None else list(interval)
