"""Reward terms over several objects: the answer's masks or boxes are matched with the targets, one to one.

The matching is the one with the highest sum (Hungarian algorithm), and the sum is divided by the
larger of the two counts, so that a missing object and a superfluous one cost the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segrl.coordinates import box_ious
from segrl.masks import mask_to_box
from segrl.rewards.rollout import Rollout
from segrl.rewards.terms import check_tiers, settled
from segrl.types import Box, MaskPrompt

if TYPE_CHECKING:
    import torch

OVER = ("mask", "box")
Tiers = Sequence[Sequence[float]]


def matching(rollout: Rollout, *, over: str = "mask", tiers: Tiers | None = None) -> float:
    """Mean IoU of the matched objects, an object without a partner counting 0, in [0, 1].

    over: "mask" compares the masks of the mask prompts, "box" their boxes with the targets' tight
    boxes (a prompt without a box has its mask's). tiers: what a pair pays for its IoU, as in
    `iou_tiers` (StAR, arXiv 2603.14382, pays SAM-R1's tiers per pair); the range is then that of the
    tiers. A failed answer, a false alarm and false silence pay 0, "nothing there" where nothing is
    pays the maximum. Source: VisionReasoner (arXiv 2505.12081).
    """
    top = 1.0 if tiers is None else max(float(reward) for _, reward in tiers)
    verdict = settled(rollout)
    if verdict is not None:
        return top * verdict
    pairs_MN = _mask_ious(rollout) if over == "mask" else box_ious(_boxes(rollout)[:, None], _target_boxes(rollout))
    if tiers is not None:
        pairs_MN = np.max([np.where(pairs_MN > bound, float(pay), 0.0) for bound, pay in tiers], axis=0)
    return _best_mean(pairs_MN)


def check_matching(*, over: str = "mask", tiers: Tiers | None = None) -> None:
    """Raises ValueError for anything but mask and box, and for tiers that `check_tiers` refuses."""
    if over not in OVER:
        raise ValueError(f"over is mask or box, not {over!r}")
    if tiers is not None:
        check_tiers(tiers=tiers)


def matching_box_point(rollout: Rollout, *, iou_threshold: float = 0.5, box_distance: float = 10 / 840) -> float:
    """VisionReasoner's accuracy reward: mean over the matched objects of three points each, in [0, 3].

    A pair pays 1 if its boxes' IoU exceeds `iou_threshold`, 1 if the mean distance of the boxes'
    edges is below `box_distance` (a share of the image's side; 10 pixels of an 840 frame in its
    code), and 1 if the prompt's first foreground point lies on the target. The original asks for a
    point within 30 pixels of one of its annotation; masks need no such number. Empty cases as in
    `matching`. Source: VisionReasoner (arXiv 2505.12081).
    """
    verdict = settled(rollout)
    if verdict is not None:
        return 3.0 * verdict
    boxes_M4, targets_N4 = _boxes(rollout), _target_boxes(rollout)
    height, width = rollout.targets.shape[1:]
    edges_MN4 = np.abs(boxes_M4[:, None] - targets_N4) / np.array([width, height, width, height])
    pairs_MN = (box_ious(boxes_M4[:, None], targets_N4) > iou_threshold).astype(float)
    pairs_MN += edges_MN4.mean(axis=-1) < box_distance
    pairs_MN += np.array([[_points_at(prompt, target) for target in _targets(rollout)] for prompt in _prompts(rollout)])
    return _best_mean(pairs_MN)


def check_matching_box_point(*, iou_threshold: float = 0.5, box_distance: float = 10 / 840) -> None:
    """Raises ValueError unless the threshold is in [0, 1) and the distance in (0, 1]: shares, not pixels."""
    if not 0 <= iou_threshold < 1 or not 0 < box_distance <= 1:
        raise ValueError(f"iou_threshold {iou_threshold} and box_distance {box_distance} are shares, within 0 and 1")


def _best_mean(pairs_MN: np.ndarray) -> float:
    """The highest sum of a one-to-one matching, divided by the larger count."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(pairs_MN, maximize=True)
    return float(pairs_MN[rows, columns].sum() / max(pairs_MN.shape))


def _prompts(rollout: Rollout) -> Sequence[MaskPrompt]:
    return rollout.answer.prompts


def _targets(rollout: Rollout) -> np.ndarray:
    """The targets without ignored pixels, `(N, H, W)` bool, those with no pixel left out."""
    targets = rollout.targets if rollout.ignore is None else rollout.targets & ~rollout.ignore
    return np.asarray(targets[targets.any(axis=(1, 2))])


def _mask_ious(rollout: Rollout) -> np.ndarray:
    """IoU of every mask with every target, `(M, N)` float64."""
    import torch

    from segrl.scoring import iou

    masks: torch.Tensor = rollout.segmentation.masks
    ignore = None if rollout.ignore is None else torch.from_numpy(rollout.ignore)
    columns = [iou(masks, torch.from_numpy(target), ignore).cpu().numpy() for target in _targets(rollout)]
    return np.stack(columns, axis=1)


def _boxes(rollout: Rollout) -> np.ndarray:
    """The answer's boxes, `(M, 4)` xyxy; a prompt without one has its mask's, or none (zeros) if that is empty."""
    rows: list[Box] = []
    for prompt, mask in zip(_prompts(rollout), rollout.segmentation.masks, strict=True):
        rows.append(prompt.box_xyxy or mask_to_box(mask.cpu().numpy()) or (0.0, 0.0, 0.0, 0.0))
    return np.array(rows, dtype=float).reshape(-1, 4)


def _target_boxes(rollout: Rollout) -> np.ndarray:
    return np.array([mask_to_box(target) for target in _targets(rollout)], dtype=float).reshape(-1, 4)


def _points_at(prompt: MaskPrompt, target: np.ndarray) -> bool:
    """Whether the prompt's first foreground point lies on the target."""
    height, width = target.shape
    for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True):
        if label:
            return bool(target[min(math.floor(y), height - 1), min(math.floor(x), width - 1)])
    return False
