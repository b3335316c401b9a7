"""S-measure (Fan, Cheng, Liu, Li and Borji, ICCV 2017): structural similarity of a mask and its ground truth."""

from __future__ import annotations

import numpy as np
import torch

from segrl.scoring.overlap import check_masks, count

EPS = float(np.spacing(1))
"""The constant that keeps PySODMetrics' quotients finite."""


def s_measure(
    pred: torch.Tensor, gt: torch.Tensor, *, alpha: float = 0.5, ignore: torch.Tensor | None = None
) -> torch.Tensor:
    """S-measure of each mask against the ground truth, `(N,)` float64 in [0, 1] on `pred`'s device.

    `alpha` × object score + (1 − `alpha`) × region score, as PySODMetrics computes them, for
    pred `(N, H, W)` bool and gt `(H, W)` bool. With an empty truth it is the share of the image
    left empty, with a full truth the share covered. Where the truth's centre lies on the last row
    or column some quadrants hold no pixels and PySODMetrics answers NaN; here they count 0 (their
    weight is 0). `ignore` pixels `(H, W)` bool are taken as background in both.
    """
    check_masks(pred, gt)
    gt = gt.to(pred.device)
    if ignore is not None:
        keep = ~ignore.to(pred.device)
        pred, gt = pred & keep, gt & keep
    if gt.numel() == 0:
        return torch.ones(len(pred), dtype=torch.float64, device=pred.device)
    pixels, area = gt.numel(), int(gt.sum())
    if area in (0, pixels):
        covered = count(pred) / pixels
        return covered if area else 1 - covered
    stats = _Quadrants(pred, gt)
    return (alpha * _object(stats) + (1 - alpha) * _region(stats)).clamp(min=0)


class _Quadrants:
    """Pixel counts in the four quadrants around the truth's centre, float64.

    pred_NQ, both_NQ: pixels of each mask, and of each mask and the truth. gt_Q: pixels of the
    truth. size_Q: pixels at all.
    """

    def __init__(self, pred: torch.Tensor, gt: torch.Tensor) -> None:
        height, width = gt.shape
        ys, xs = torch.nonzero(gt, as_tuple=True)
        cy, cx = (int(v.double().mean().round()) + 1 for v in (ys, xs))
        parts = [(slice(a, b), slice(c, d)) for a, b in ((0, cy), (cy, height)) for c, d in ((0, cx), (cx, width))]
        both = pred & gt
        self.pred_NQ = torch.stack([count(pred[:, rows, columns]) for rows, columns in parts], dim=1)
        self.both_NQ = torch.stack([count(both[:, rows, columns]) for rows, columns in parts], dim=1)
        self.gt_Q = torch.cat([count(gt[None, rows, columns]) for rows, columns in parts])
        sizes = [gt[rows, columns].numel() for rows, columns in parts]
        self.size_Q = torch.tensor(sizes, dtype=torch.float64, device=pred.device)


def _object(stats: _Quadrants) -> torch.Tensor:
    """The object score `(N,)`: how evenly the mask covers the truth, and spares the rest."""
    pixels, area = stats.size_Q.sum(), stats.gt_Q.sum()
    hit = stats.both_NQ.sum(dim=1)
    spared = (pixels - area) - (stats.pred_NQ.sum(dim=1) - hit)
    share = area / pixels
    return _evenness(hit, area) * share + _evenness(spared, pixels - area) * (1 - share)


def _evenness(hits_N: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """2 m / (m² + 1 + s) for the mean m and deviation s (n − 1) of `of` zeros and ones, `hits_N` of them ones."""
    mean = hits_N / of
    deviation = (hits_N * (1 - mean) / (of - 1).clamp(min=1)).clamp(min=0).sqrt()
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _region(stats: _Quadrants) -> torch.Tensor:
    """The region score `(N,)`: the SSIM of each quadrant, weighted by its area."""
    size = stats.size_Q
    weight = size / size.sum()
    n = size.clamp(min=1)
    x, y = stats.pred_NQ / n, stats.gt_Q / n
    sigma_x = stats.pred_NQ * (1 - x) / (n - 1 + EPS)
    sigma_y = stats.gt_Q * (1 - y) / (n - 1 + EPS)
    sigma_xy = (stats.both_NQ - stats.pred_NQ * y) / (n - 1 + EPS)
    alpha, beta = 4 * x * y * sigma_xy, (x**2 + y**2) * (sigma_x + sigma_y)
    ssim = torch.where(alpha != 0, alpha / (beta + EPS), (beta == 0).double())
    return (ssim * weight).sum(dim=1)
