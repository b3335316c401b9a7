"""Measures of salient-object work that depend on pixel counts alone, because our masks are 0 or 1.

PySODMetrics cuts a prediction at each of the 256 grey levels. A mask of 0 and 1 looks the same at 255 of
them, and at the lowest the whole image is the prediction; its adaptive threshold (twice the mean) is at
or below 1, so it gives the mask itself, or the whole image where the mask is empty.
"""

from __future__ import annotations

import numpy as np

from segrl.scoring.structure import EPS

Counts = np.ndarray

BETA_SQUARED = 0.3
"""The weight of precision in the field's F-measure (Achanta et al., CVPR 2009)."""


def e_measure(both: Counts, predicted: Counts, target: Counts, pixels: Counts) -> np.ndarray:
    """E-measure (Fan et al., IJCAI 2018) of masks against truths, `(n,)` float64, as PySODMetrics has it.

    both: pixels in mask and truth; predicted, target: pixels of each; pixels: of the image; `(n,)` each.
    With an empty truth it is the share left empty, with a full one the share covered. The sum over the
    pixels is divided by one pixel less, as there, so a perfect mask stands a trifle above 1.
    """
    both, predicted, target, pixels = (np.asarray(v, dtype=np.float64) for v in (both, predicted, target, pixels))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_predicted, mean_target = predicted / pixels, target / pixels
        missed, alarms = target - both, predicted - both
        parts = ((both, 1, 1), (alarms, 1, 0), (missed, 0, 1), (pixels - both - alarms - missed, 0, 0))
        total = sum(count * _enhanced(p - mean_predicted, t - mean_target) for count, p, t in parts)
        total = np.where(target == 0, pixels - predicted, np.where(target == pixels, predicted, total))
        return np.asarray(total / np.maximum(pixels - 1, 1))


def _enhanced(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The enhanced alignment of a pixel, from the values of mask and truth less their means."""
    alignment = 2 * mask * truth / (mask**2 + truth**2 + EPS)
    return np.asarray((alignment + 1) ** 2 / 4)


def f_measure(both: Counts, predicted: Counts, target: Counts, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """F-measure of masks against truths, `(n,)` float64 in [0, 1]: 0 where mask and truth share no pixel."""
    both, predicted, target = (np.asarray(v, dtype=np.float64) for v in (both, predicted, target))
    below = beta_squared * target + predicted
    return np.divide((1 + beta_squared) * both, below, out=np.zeros_like(both), where=(both > 0) & (below > 0))
