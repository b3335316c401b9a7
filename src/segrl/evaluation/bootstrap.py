"""Metrics with bootstrap intervals: a ratio of sums, resampled by whole images.

Every metric of ours is `sum(numerators) / sum(denominators)` over samples: a mean has ones below,
cIoU the unions. Samples of one image are drawn together (a cluster), because several expressions of
one picture are not independent. Percentile intervals: Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from segrl.evaluation.catalogue import Columns, Metric

Interval = tuple[float, float]
Numbers = Sequence[float] | np.ndarray

RESAMPLES = 2000
_CELLS = 1_000_000  # counts held at once: resamples per block × clusters


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


def ratio(numerators: Numbers, denominators: Numbers | None = None) -> float | None:
    """`sum(numerators) / sum(denominators)`, the mean without denominators; None where that is 0/0 or x/0."""
    below = float(len(numerators)) if denominators is None else float(np.sum(denominators))
    return float(np.sum(numerators)) / below if below else None


def bootstrap_ci(
    values: Numbers,
    denominators: Numbers | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of `ratio(values, denominators)`.

    values, denominators: `(n,)`. clusters: `(n,)` equal where samples are drawn together (image ids);
    without it each sample is its own. Resamples whose denominators sum to 0 say nothing and are left
    out. None with fewer than two clusters, or where the ratio itself is undefined. Equal arguments
    give equal intervals.
    """
    return _interval([_column(values, denominators)], clusters, level, resamples, seed)


def paired_bootstrap(
    before: Numbers,
    after: Numbers,
    *,
    before_denominators: Numbers | None = None,
    after_denominators: Numbers | None = None,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of `ratio(after) − ratio(before)` where sample i of both is the same sample.

    Both sides are drawn with the same images, so what makes an image easy or hard cancels.
    Otherwise as `bootstrap_ci`. Raises ValueError if the lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before but {len(after)} after: pairs are needed")
    sides = [_column(after, after_denominators), _column(before, before_denominators)]
    return _interval(sides, clusters, level, resamples, seed)


def resampled_ratios(
    above: np.ndarray,
    below: np.ndarray,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """The ratio of sums of K columns in every resample, `(resamples, K)` float64; NaN where the lower sum is 0.

    above, below: `(n, K)`; all columns are drawn with the same images, so columns of one resample may be
    subtracted or compared. clusters: as in `bootstrap_ci`.
    """
    n_columns = above.shape[1]
    sums = _cluster_sums(np.concatenate([above, below], axis=1), clusters)
    drawn = np.concatenate([block @ sums for block in _resampled_counts(len(sums), resamples, seed)])
    upper, lower = drawn[:, :n_columns], drawn[:, n_columns:]
    return np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower != 0)


def percentile_interval(drawn: np.ndarray, level: float = 0.95) -> Interval | None:
    """The percentile interval of a statistic's resamples `(resamples,)`, NaN left out; None where all are."""
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def count_clusters(clusters: Sequence[Hashable]) -> int:
    """How many different clusters there are; an interval needs two."""
    return len(set(clusters))


def _column(values: Numbers, denominators: Numbers | None) -> np.ndarray:
    """`(n, 2)` float64: values and denominators."""
    above = np.asarray(values, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    return np.stack([above, below], axis=1)


def _cluster_sums(columns: np.ndarray, clusters: Sequence[Hashable] | None) -> np.ndarray:
    """`(G, K)` float64: the sums of `(n, K)` columns in each cluster."""
    _check_clusters(columns, clusters)
    if clusters is None:
        return columns
    index: dict[Hashable, int] = {}
    owners = np.array([index.setdefault(cluster, len(index)) for cluster in clusters], dtype=np.intp)
    return np.stack([np.bincount(owners, side, minlength=len(index)) for side in columns.T], axis=1)


def _check_clusters(columns: np.ndarray, clusters: Sequence[Hashable] | None) -> None:
    if clusters is not None and len(clusters) != len(columns):
        raise ValueError(f"{len(columns)} values but {len(clusters)} clusters")


def _interval(
    sides: list[np.ndarray], clusters: Sequence[Hashable] | None, level: float, resamples: int, seed: int
) -> Interval | None:
    """Interval of the first side's ratio minus the second's (of the ratio itself with one side)."""
    _check_clusters(sides[0], clusters)
    n_clusters = len(sides[0]) if clusters is None else count_clusters(clusters)
    if n_clusters < 2 or any(side[:, 1].sum() == 0 for side in sides):
        return None
    above, below = (np.stack([side[:, i] for side in sides], axis=1) for i in (0, 1))
    ratios = resampled_ratios(above, below, clusters=clusters, resamples=resamples, seed=seed)
    return percentile_interval(ratios[:, 0] if len(sides) == 1 else ratios[:, 0] - ratios[:, 1], level)


def _resampled_counts(n_clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn: blocks of `(b, G)` float64 with `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // n_clusters)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        cells = rng.integers(0, n_clusters, size=(size, n_clusters)) + n_clusters * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * n_clusters)
        yield counts.reshape(size, n_clusters).astype(np.float64)
