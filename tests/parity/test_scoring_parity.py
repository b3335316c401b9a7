"""Scores against PySODMetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from py_sod_metrics import Smeasure

from segrl import scoring


def reference(pred: np.ndarray, gt: np.ndarray, alpha: float = 0.5) -> float:
    """PySODMetrics' S-measure without its normalisation (which misreads masks of 0 and 1)."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(Smeasure(alpha).cal_sm(pred.astype(np.float64), gt))


def centre_is_inside(gt: np.ndarray) -> bool:
    """Whether all four quadrants hold pixels, so that PySODMetrics answers a number."""
    if not gt.any() or gt.all():
        return True
    cy, cx = np.argwhere(gt).mean(axis=0).round() + 1
    return cy < gt.shape[0] and cx < gt.shape[1]


pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


@settings(deadline=None, max_examples=300)
@given(pair=pairs)
@example(pair=(np.ones((3, 5), bool), np.zeros((3, 5), bool)))
@example(pair=(np.zeros((3, 5), bool), np.ones((3, 5), bool)))
def test_s_measure_equals_pysodmetrics(pair):
    pred, gt = pair
    ours = scoring.s_measure(torch.from_numpy(pred)[None], torch.from_numpy(gt)).item()
    if centre_is_inside(gt):
        assert ours == pytest.approx(reference(pred, gt), abs=1e-6)
    else:
        assert np.isnan(reference(pred, gt))
        assert 0 <= ours <= 1


@pytest.mark.parametrize("hw", [(37, 53), (200, 120)])
def test_s_measure_of_blobs(hw):
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[: hw[0], : hw[1]]
    masks = []
    for _ in range(12):
        cy, cx, r = rng.uniform(0, hw[0]), rng.uniform(0, hw[1]), rng.uniform(3, 30)
        masks.append((ys - cy) ** 2 + (xs - cx) ** 2 < r * r)
    pred, gt = np.stack([*masks, np.zeros(hw, bool), np.ones(hw, bool)]), masks[3]
    ours = scoring.s_measure(torch.from_numpy(pred), torch.from_numpy(gt), alpha=0.3)
    expected = [reference(p, gt, 0.3) for p in pred]
    assert np.allclose(ours.numpy(), expected, atol=1e-9)


def test_a_quadrant_without_pixels_counts_zero():
    gt = np.zeros((4, 6), bool)
    gt[3, 2:4] = True
    assert np.isnan(reference(gt, gt))
    assert scoring.s_measure(torch.from_numpy(gt)[None], torch.from_numpy(gt)).item() == pytest.approx(1.0)


@settings(deadline=None, max_examples=100)
@given(pair=pairs)
def test_iou_equals_pycocotools(pair):
    from pycocotools import mask as coco

    pred, gt = (coco.encode(np.asfortranarray(m, dtype=np.uint8)) for m in pair)
    ours = scoring.iou(torch.from_numpy(pair[0])[None], torch.from_numpy(pair[1])).item()
    if pair[0].any() or pair[1].any():
        assert ours == pytest.approx(float(coco.iou([pred], [gt], [False])[0, 0]), abs=1e-6)
    else:
        assert ours == 1.0
