"""Boundary IoU (Cheng, Girshick, Dollár, Berg and Kirillov, CVPR 2021): IoU of the masks' inner rims."""

from __future__ import annotations

import math

import numpy as np
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
