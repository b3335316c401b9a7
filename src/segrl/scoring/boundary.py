"""Boundary IoU (Cheng, Girshick, Dollár, Berg and Kirillov, CVPR 2021): IoU of the masks' inner rims."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from segrl.scoring.overlap import check_masks, iou


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
    outside = F.pad((~masks).float()[:, None], [width_px] * 4, value=1.0)
    size = 2 * width_px + 1
    near = F.max_pool2d(F.max_pool2d(outside, (size, 1), stride=1), (1, size), stride=1)
    return masks & (near[:, 0] > 0)
