"""Bootstrap intervals of a ratio of sums, by resampling whole images.

Every metric of ours is `sum(numerators) / sum(denominators)` over samples: a mean has ones below,
cIoU the unions. Samples of one image are drawn together (a cluster), because several expressions of
one picture are not independent. Percentile intervals: Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

Interval = tuple[float, float]
Numbers = Sequence[float] | np.ndarray

RESAMPLES = 2000
_CELLS = 4_000_000  # counts held at once: resamples per block × clusters


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
    return _interval([_sums(values, denominators, clusters)], level, resamples, seed)


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
    sides = [_sums(after, after_denominators, clusters), _sums(before, before_denominators, clusters)]
    return _interval(sides, level, resamples, seed)


def _sums(values: Numbers, denominators: Numbers | None, clusters: Sequence[Hashable] | None) -> np.ndarray:
    """`(G, 2)` float64: the sums of values and denominators in each cluster."""
    above = np.asarray(values, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if clusters is None:
        return np.stack([above, below], axis=1)
    if len(clusters) != len(above):
        raise ValueError(f"{len(above)} values but {len(clusters)} clusters")
    index: dict[Hashable, int] = {}
    owners = np.array([index.setdefault(cluster, len(index)) for cluster in clusters], dtype=np.intp)
    return np.stack([np.bincount(owners, side, minlength=len(index)) for side in (above, below)], axis=1)


def _interval(sides: list[np.ndarray], level: float, resamples: int, seed: int) -> Interval | None:
    """Interval of the first side's ratio minus the second's (of the ratio itself with one side)."""
    n_clusters = len(sides[0])
    if n_clusters < 2 or any(side[:, 1].sum() == 0 for side in sides):
        return None
    counts = _resampled_counts(n_clusters, resamples, seed)
    drawn = np.concatenate([np.concatenate([block @ side for side in sides], axis=1) for block in counts])
    drawn = drawn[(drawn[:, 1::2] != 0).all(axis=1)]
    ratios = drawn[:, 0::2] / drawn[:, 1::2]
    statistic = ratios[:, 0] if len(sides) == 1 else ratios[:, 0] - ratios[:, 1]
    tail = (1 - level) / 2
    low, high = np.quantile(statistic, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_counts(n_clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn: blocks of `(b, G)` float64 with `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // n_clusters)
    shares = np.full(n_clusters, 1 / n_clusters)
    for start in range(0, resamples, rows):
        yield rng.multinomial(n_clusters, shares, size=min(rows, resamples - start)).astype(np.float64)
