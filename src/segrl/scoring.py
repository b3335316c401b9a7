"""Masks and ground truth → numbers: IoU, boundary IoU, S-measure, E-measure, F-measure, weighted F, and `Score`.

Pure functions; each says what the empty case gives.

E- and F-measure depend on pixel counts alone, because our masks are 0 or 1. PySODMetrics cuts a prediction at each of
the 256 grey levels: a mask of 0 and 1 looks the same at 255 of them, and at the lowest the whole image is the
prediction; its adaptive threshold (twice the mean) is at or below 1, so it gives the mask itself, or the whole image
where the mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from segrl.types import Score, Segmentation, Status


def iou(pred: torch.Tensor, gt: torch.Tensor, ignore: torch.Tensor | None = None) -> torch.Tensor:
    """IoU of each mask with the ground truth, `(N,)` float64 in [0, 1] on `pred`'s device.

    pred: `(N, H, W)` bool. gt, ignore: `(H, W)` bool; `ignore` pixels count nowhere.
    Empty with empty is 1 (whether that earns anything is `score`'s matter).
    """
    intersection, union = intersection_and_union(pred, gt, ignore)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0).double()


def pair_ious(pred: torch.Tensor, targets: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
    """IoU of each of M masks with each of N targets, `(M, N)` float64, as `iou`.

    pred: `(M, H, W)` bool. targets: `(N, H, W)` bool. ignore: `(H, W)` bool.
    """
    import numpy as np
    import torch

    if len(pred) == 0 or len(targets) == 0:
        return np.zeros((len(pred), len(targets)))
    left_out = None if ignore is None else torch.from_numpy(ignore)
    columns = [iou(pred, torch.from_numpy(target), left_out).cpu().numpy() for target in targets]
    return np.stack(columns, axis=1)


def intersection_and_union(
    pred: torch.Tensor, gt: torch.Tensor, ignore: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels in both and in either, `(N,)` float64 each (whole numbers); arguments as in `iou`."""
    pred, gt = _comparable(pred, gt, ignore)
    both, either = count(pred & gt), count(pred | gt)
    return both, either


def count(masks: torch.Tensor) -> torch.Tensor:
    """Pixels of each mask of `(N, H, W)` bool, `(N,)` float64."""
    if masks.device.type != "cpu":
        return masks.sum(dim=(1, 2), dtype=torch.int64).double()
    pixels = [np.count_nonzero(mask) for mask in masks.numpy()]  # 100 times faster than torch's sum of bools
    return torch.tensor(pixels, dtype=torch.float64)


def _comparable(pred: torch.Tensor, gt: torch.Tensor, ignore: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Both on one device, without the pixels to ignore. Raises ValueError as `check_masks`."""
    check_masks(pred, gt)
    gt = gt.to(pred.device)
    if ignore is None:
        return pred, gt
    keep = ~ignore.to(pred.device)
    return pred & keep, gt & keep


def check_masks(pred: torch.Tensor, gt: torch.Tensor) -> None:
    """Raise ValueError unless `pred` is bool `(N, H, W)` and `gt` bool `(H, W)` of that size."""
    if pred.dtype != torch.bool or gt.dtype != torch.bool:
        raise ValueError(f"masks are bool, not {pred.dtype} and {gt.dtype}")
    if pred.ndim != 3 or pred.shape[1:] != gt.shape:
        raise ValueError(f"masks (N, H, W) against a truth (H, W), not {tuple(pred.shape)} against {tuple(gt.shape)}")


def boundary_iou(pred: torch.Tensor, gt: torch.Tensor, *, dilation_ratio: float = 0.02) -> torch.Tensor:
    """IoU of each mask's rim with the truth's rim, `(N,)` float64 in [0, 1] on `pred`'s device.

    The rim is what d erosions with a 3×3 square take off a mask, with
    d = `dilation_ratio` × the image's diagonal (at least 1 pixel); outside the image is background.
    pred: `(N, H, W)` bool. gt: `(H, W)` bool. Empty with empty is 1.
    """
    check_masks(pred, gt)
    width = max(1, round(dilation_ratio * math.hypot(*gt.shape)))
    return iou(rim(pred, width), rim(gt[None].to(pred.device), width)[0])


def rim(masks: torch.Tensor, width_px: int) -> torch.Tensor:
    """The pixels of each mask at most `width_px` (chessboard distance) from background, `(N, H, W)` bool."""
    if masks.numel() == 0:
        return masks
    return masks & ~(_erode_on_host if masks.device.type == "cpu" else _erode_on_device)(masks, width_px)


def _erode_on_host(masks: torch.Tensor, width_px: int) -> torch.Tensor:
    """Each mask without the pixels at most `width_px` from background; outside the image is background."""
    import cv2

    square = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    pixels = masks.numpy().view(np.uint8)
    inner = [cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) for mask in pixels]
    return torch.from_numpy(np.stack(inner).view(bool))


def _erode_on_device(masks: torch.Tensor, width_px: int) -> torch.Tensor:
    """As `_erode_on_host`, where the masks are."""
    outside = F.pad((~masks).float()[:, None], [width_px] * 4, value=1.0)
    size = 2 * width_px + 1
    near = F.max_pool2d(F.max_pool2d(outside, (size, 1), stride=1), (1, size), stride=1)
    return near[:, 0] == 0


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
    pred, gt = _comparable(pred, gt, ignore)
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


def weighted_f(pred: np.ndarray, gt: np.ndarray) -> float:
    """Weighted F-measure of a `(H, W)` bool mask against a `(H, W)` bool truth, in [0, 1]; 0 with an empty truth.

    PySODMetrics computes it (β² = 1), without its normalisation, which misreads masks of 0 and 1.
    """
    from py_sod_metrics import WeightedFmeasure

    if not gt.any():
        return 0.0
    return float(WeightedFmeasure().cal_wfm(pred.astype(np.float64), gt))


Mask = torch.Tensor | np.ndarray


def score(
    segmentations: Sequence[Segmentation],
    truths: Sequence[Mask],
    ignores: Sequence[Mask | None] | None = None,
) -> list[Score]:
    """One Score per segmentation: the union of its masks against `truths[i]`, `(H, W)` bool.

    ignores: `(H, W)` bool pixels left out, or None, per sample.
    A failed answer scores 0 in IoU and S-measure, also where the truth is empty, and its union is
    the truth's area. On an empty truth NO_TARGET scores 1 in both, and an OK answer 0 in both,
    even where its mask came out empty: it is a false alarm. NO_TARGET on a truth with pixels is the
    empty mask: IoU 0. Truths that are the same object (a group's) are scored together.
    """
    if len(segmentations) != len(truths):
        raise ValueError(f"{len(segmentations)} segmentations but {len(truths)} truths")
    skip = ignores if ignores is not None else [None] * len(truths)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (truth, ignore) in enumerate(zip(truths, skip, strict=True)):
        groups.setdefault((id(truth), id(ignore)), []).append(i)
    scores: dict[int, Score] = {}
    for rows in groups.values():
        group = [segmentations[i] for i in rows]
        scores.update(zip(rows, _score_group(group, truths[rows[0]], skip[rows[0]]), strict=True))
    return [scores[i] for i in range(len(segmentations))]


def _score_group(group: Sequence[Segmentation], truth: Mask, ignore: Mask | None) -> list[Score]:
    device = next((s.masks.device for s in group if len(s.masks)), group[0].masks.device)
    gt = torch.as_tensor(truth).to(device)
    keep = torch.ones_like(gt) if ignore is None else ~torch.as_tensor(ignore).to(device)
    gt = gt & keep
    pred = torch.stack([segmentation.union.to(device) for segmentation in group]) & keep
    intersection, union = intersection_and_union(pred, gt)
    columns = torch.stack([intersection, union, count(pred), s_measure(pred, gt)])
    area = int(gt.sum())
    rows = columns.T.tolist()
    return [
        _one(segmentation.answer.status, area, int(row[0]), int(row[1]), int(row[2]), row[3])
        for segmentation, row in zip(group, rows, strict=True)
    ]


def _one(status: Status, area: int, both: int, either: int, predicted: int, structure: float) -> Score:
    if status.is_failure:
        return Score(status, 0.0, 0.0, 0, area, area, 0)
    if area == 0:
        right = float(status is Status.NO_TARGET)
        return Score(status, right, right, both, either, area, predicted)
    return Score(status, both / either, structure, both, either, area, predicted)
