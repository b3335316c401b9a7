"""Reward terms of conversations: the last mask against the first, and what the turns cost.

All other terms are of the last mask. None for a single answer.
"""

from __future__ import annotations

from segrl.rewards.rollout import Rollout


def first_iou(rollout: Rollout) -> float | None:
    """IoU of the first turn's mask in a conversation, in [0, 1]; None for a single answer."""
    return rollout.turns[0].score.iou if rollout.turns else None


def improvement(rollout: Rollout) -> float | None:
    """IoU of the last turn's mask less that of the first turn's, in [-1, 1]; None for a single answer.

    It pays for a poor first answer as well: `iou` beside it weighs the last mask, and `first_iou` with at least this
    term's weight takes that gain away.
    """
    return rollout.turns[-1].score.iou - rollout.turns[0].score.iou if rollout.turns else None


def turn_cost(rollout: Rollout) -> float | None:
    """Less 1 for every turn after the first, "done" included: 0, -1, -2, …; None for a single answer."""
    return 1.0 - len(rollout.turns) if rollout.turns else None
