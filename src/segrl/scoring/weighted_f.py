"""Weighted F-measure (Margolin, Zelnik-Manor and Tal, CVPR 2014)."""

from __future__ import annotations

import numpy as np


def weighted_f(pred: np.ndarray, gt: np.ndarray) -> float:
    """Weighted F-measure of a `(H, W)` bool mask against a `(H, W)` bool truth, in [0, 1]; 0 with an empty truth.

    PySODMetrics computes it (β² = 1), without its normalisation, which misreads masks of 0 and 1.
    """
    from py_sod_metrics import WeightedFmeasure

    if not gt.any():
        return 0.0
    return float(WeightedFmeasure().cal_wfm(pred.astype(np.float64), gt))
