"""Reward terms over the points of an answer."""

from __future__ import annotations

import math

import numpy as np

from segrl.rewards.rollout import Rollout
from segrl.rewards.terms import settled


def points_on_target(rollout: Rollout) -> float | None:
    """Share of the points that lie on the side of the ground truth that their label claims, in [0, 1].

    A foreground point belongs on the union of the targets, a background point off it; points on
    ignored pixels do not count. An answer with background points alone pays 0: almost any pixel
    would do. None without points (a box alone is an answer) or with all of them ignored; a failed
    answer, a false alarm and false silence pay 0, "nothing there" where nothing is pays 1.
    SAM-R1 (arXiv 2505.22596) asks for such labels; its mask reward alone did not produce useful
    background points.
    """
    verdict = settled(rollout)
    if verdict is not None:
        return verdict
    points = [pair for p in rollout.answer.prompts for pair in zip(p.points_xy, p.labels, strict=True)]
    truth = np.asarray(rollout.targets.any(axis=0))
    if rollout.ignore is not None:
        points = [(xy, label) for xy, label in points if not _at(rollout.ignore, *xy)]
    if not points:
        return None
    if not any(label for _, label in points):
        return 0.0
    return sum(_at(truth, *xy) == bool(label) for xy, label in points) / len(points)


def number_of_points(rollout: Rollout, *, low: int = 1, high: int = 4) -> float:
    """Mean over the answer's objects of how well their number of points fits, in [0, 1].

    1 from `low` to `high` points (counts per mask prompt, of either label), below n / low, above
    high / n. Empty cases as in `points_on_target`. Source: our own; answers whose points run away
    are what it is for.
    """
    verdict = settled(rollout)
    if verdict is not None:
        return verdict
    counts = [len(prompt.points_xy) for prompt in rollout.answer.prompts]
    return sum(n / low if n < low else min(1.0, high / n) if n else 1.0 for n in counts) / len(counts)


def check_number_of_points(*, low: int = 1, high: int = 4) -> None:
    """Raises ValueError unless 0 ≤ low ≤ high and high ≥ 1."""
    if not 0 <= low <= high or high < 1:
        raise ValueError(f"number of points: low {low} and high {high} must rise from 0")


def _at(mask: np.ndarray, x: float, y: float) -> bool:
    """The pixel under a point; the far edge of the image belongs to the last pixel."""
    height, width = mask.shape
    return bool(mask[min(math.floor(y), height - 1), min(math.floor(x), width - 1)])
