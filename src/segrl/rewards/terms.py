"""Reward terms: small pure functions from a rollout to a number.

`None` says that a term does not apply to a rollout; 0 that the policy tried and failed; a fault of
our own raises. Each term is largest for the perfect mask, and an empty mask never beats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from segrl.rewards.rollout import Rollout
from segrl.types import Status

SAM_R1_TIERS = ((0.5, 2.0), (0.7, 3.0), (0.8, 4.0))
"""SAM-R1 (arXiv 2505.22596): IoU in (0.5, 0.7] pays 2, in (0.7, 0.8] 3, above 0.8 4."""


def iou(rollout: Rollout) -> float:
    """Intersection over union of the answer's mask with the ground truth, in [0, 1]."""
    return rollout.score.iou


def iou_tiers(rollout: Rollout, *, tiers: Sequence[Sequence[float]] = SAM_R1_TIERS) -> float:
    """What the highest tier pays whose threshold the IoU exceeds; 0 below the first.

    tiers: pairs (threshold, reward), see `check_tiers`.
    """
    return max((float(reward) for threshold, reward in tiers if rollout.score.iou > threshold), default=0.0)


def check_tiers(*, tiers: Sequence[Sequence[float]] = SAM_R1_TIERS) -> None:
    """Raises ValueError unless thresholds lie in [0, 1) and rise, and rewards are above 0 and rise with them.

    With any other tiers a worse mask could earn more, or the perfect one nothing.
    """
    rising = all(low[0] < high[0] and low[1] < high[1] for low, high in pairwise(tiers))
    if not tiers or not rising or tiers[0][1] <= 0 or tiers[0][0] < 0 or tiers[-1][0] >= 1:
        raise ValueError(f"tiers must rise in threshold (within 0 and 1) and in reward (above 0), not {tiers}")


def s_measure(rollout: Rollout) -> float:
    """Structure measure of the answer's mask (Fan et al., ICCV 2017; α = 0.5), in [0, 1]."""
    return rollout.score.s_measure


def boundary_iou(rollout: Rollout, *, dilation_ratio: float = 0.02) -> float:
    """Boundary IoU of the answer's mask (Cheng et al., CVPR 2021), in [0, 1].

    dilation_ratio: the rim's width as a share of the image's diagonal. A failed answer, a false alarm
    and false silence pay 0, "nothing there" where nothing is pays 1.
    """
    import torch

    from segrl import scoring

    verdict = settled(rollout)
    if verdict is not None:
        return verdict
    mask, truth = rollout.segmentation.union, torch.from_numpy(rollout.targets.any(axis=0))
    if rollout.ignore is not None:
        keep = torch.from_numpy(~rollout.ignore)
        mask, truth = mask & keep.to(mask.device), truth & keep
    return float(scoring.boundary_iou(mask[None], truth, dilation_ratio=dilation_ratio)[0])


def check_boundary_iou(*, dilation_ratio: float = 0.02) -> None:
    """Raises ValueError unless the ratio is a share of the diagonal above 0."""
    if not 0 < dilation_ratio <= 1:
        raise ValueError(f"dilation_ratio is a share of the image's diagonal, within 0 and 1, not {dilation_ratio}")


def settled(rollout: Rollout) -> float | None:
    """The value of an answer that does not depend on its mask; None for one that names something that may be there.

    0 for a failure, a false alarm and false silence; 1 for "nothing there" where nothing is, as in `scoring.score`.
    """
    status = rollout.answer.status
    if status.is_failure:
        return 0.0
    silent = status is Status.NO_TARGET
    if rollout.score.target_area == 0:
        return float(silent)
    return 0.0 if silent else None


def format_think(rollout: Rollout) -> float:
    """1 if the reasoning stands in closed think tags, else 0 (SAM-R1)."""
    return float("think" in rollout.answer.parts)


def format_answer(rollout: Rollout) -> float:
    """1 if the answer can be read and its values are valid, "nothing there" included, else 0 (SAM-R1)."""
    return float(not rollout.answer.status.is_failure)


def format_all(rollout: Rollout) -> float:
    """1 if every part that the answer format asks for is there, readable and consistent, else 0.

    Seg-R1's all-or-nothing reward: think, bbox, points and labels in its format.
    """
    complete = rollout.required_parts <= rollout.answer.parts
    return float(complete and not rollout.answer.status.is_failure)


def no_target(rollout: Rollout) -> float | None:
    """1 for saying "nothing there" where nothing is; 0 for a false alarm and for false silence.

    None for an answer that names something on a sample that has a target: other terms judge that.
    """
    silent = rollout.answer.status is Status.NO_TARGET
    if rollout.has_target:
        return 0.0 if silent else None
    return float(silent)
