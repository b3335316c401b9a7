"""Reward terms: small pure functions from a rollout to a number.

`None` means that a term does not apply to a rollout, 0 that the policy failed. Each term is largest for the perfect
mask, and an empty mask never beats it.

Terms over several objects match the answer's masks or boxes with the targets one to one: the matching with the
highest sum (Hungarian algorithm), divided by the larger of the two counts, so that a missing object and a
superfluous one cost the same. Terms of conversations are None for a single answer; all others are of the last mask.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from segrl.coordinates import box_ious
from segrl.masks import mask_to_box
from segrl.rewards.rollout import Rollout
from segrl.types import Box, MaskPrompt, Status

Tiers = Sequence[Sequence[float]]
"""Pairs (threshold, reward)."""

SAM_R1_TIERS = ((0.5, 2.0), (0.7, 3.0), (0.8, 4.0))
"""SAM-R1 (arXiv 2505.22596): IoU in (0.5, 0.7] pays 2, in (0.7, 0.8] 3, above 0.8 4."""


def iou(rollout: Rollout) -> float:
    """Intersection over union of the answer's mask with the ground truth, in [0, 1]."""
    return rollout.score.iou


def iou_tiers(rollout: Rollout, *, tiers: Tiers = SAM_R1_TIERS) -> float:
    """What the highest tier pays whose threshold the IoU exceeds; 0 below the first.

    tiers: pairs (threshold, reward), see `check_tiers`.
    """
    return max((float(reward) for threshold, reward in tiers if rollout.score.iou > threshold), default=0.0)


def check_tiers(*, tiers: Tiers = SAM_R1_TIERS) -> None:
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


def format_fields(rollout: Rollout) -> float:
    """1 for a box and 1 for a point, mean over the answer's objects, in [0, 2]; graded where `format_answer` is not.

    An answer that cannot be read pays 0, "nothing there" 2: it has no fields to lack. Source: StAR (arXiv 2603.14382).
    """
    status, prompts = rollout.answer.status, rollout.answer.prompts
    if status.is_failure:
        return 0.0
    if not prompts:
        return 2.0
    return sum((p.box_xyxy is not None) + (1 in p.labels) for p in prompts) / len(prompts)


def count_match(rollout: Rollout) -> float:
    """1 if the answer names as many objects as there are, none included, else 0 (StAR's public code)."""
    return float(not rollout.answer.status.is_failure and len(rollout.answer.prompts) == len(_targets(rollout)))


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


def points_on_target(rollout: Rollout) -> float | None:
    """Share of the points that lie on the side of the ground truth that their label claims, in [0, 1].

    A foreground point belongs on the union of the targets, a background point off it; points on ignored pixels do not
    count. An answer with background points alone pays 0: almost any pixel would do. None without points (a box alone is
    an answer) or with all of them ignored; a failed answer, a false alarm and false silence pay 0, "nothing there"
    where nothing is pays 1. SAM-R1 (arXiv 2505.22596) asks for such labels.
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

    1 from `low` to `high` points (counts per mask prompt, of either label), below n / low, above high / n, so that
    points do not run away. Empty cases as in `points_on_target`. Source: our own.
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


def matching(rollout: Rollout, *, over: str = "mask", tiers: Tiers | None = None) -> float:
    """Mean IoU of the matched objects, an object without a partner counting 0, in [0, 1].

    over: "mask" compares the masks of the mask prompts, "box" their boxes with the targets' tight boxes (a prompt
    without a box has its mask's). tiers: what a pair pays for its IoU, as in `iou_tiers` (StAR, arXiv 2603.14382, pays
    SAM-R1's tiers per pair); the range is then that of the tiers. A failed answer, a false alarm and false silence pay
    0, "nothing there" where nothing is pays the maximum. Source: VisionReasoner (arXiv 2505.12081).
    """
    top = 1.0 if tiers is None else max(float(reward) for _, reward in tiers)
    verdict = settled(rollout)
    if verdict is not None:
        return top * verdict
    pairs_MN = _mask_ious(rollout) if over == "mask" else box_ious(_boxes(rollout)[:, None], _target_boxes(rollout))
    if tiers is not None:
        pairs_MN = _paid(pairs_MN, tiers)
    return _best_mean(pairs_MN)


def check_matching(*, over: str = "mask", tiers: Tiers | None = None) -> None:
    """Raises ValueError for anything but mask and box, and for tiers that `check_tiers` refuses."""
    if over not in ("mask", "box"):
        raise ValueError(f"over is mask or box, not {over!r}")
    if tiers is not None:
        check_tiers(tiers=tiers)


def matching_box_point(
    rollout: Rollout,
    *,
    iou_threshold: float = 0.5,
    box_distance: float = 10 / 840,
    tiers: Tiers | None = None,
    point_in_box: bool = False,
) -> float:
    """VisionReasoner's accuracy reward: mean over the matched objects of three points each, in [0, 3].

    A pair pays 1 if its boxes' IoU exceeds `iou_threshold`, 1 if the mean distance of the boxes' edges is below
    `box_distance` (a share of the image's side; 10 pixels of an 840 frame in its code), and 1 if the prompt's first
    foreground point lies on the target. The original asks for a point within 30 pixels of one of its annotation; masks
    need no such number. Empty cases as in `matching`. Source: VisionReasoner (arXiv 2505.12081).

    StAR (arXiv 2603.14382) adds what the pair's mask pays by `tiers` (as in `iou_tiers`) before the objects are
    matched, so that one matching serves all four, and asks that a point lie in its own box too (`point_in_box`).
    """
    verdict, top = settled(rollout), 0.0 if tiers is None else max(float(pay) for _, pay in tiers)
    if verdict is not None:
        return (3.0 + top) * verdict
    boxes_M4, targets_N4 = _boxes(rollout), _target_boxes(rollout)
    height, width = rollout.targets.shape[1:]
    edges_MN4 = np.abs(boxes_M4[:, None] - targets_N4) / np.array([width, height, width, height])
    pairs_MN = (box_ious(boxes_M4[:, None], targets_N4) > iou_threshold).astype(float)
    pairs_MN += edges_MN4.mean(axis=-1) < box_distance
    pairs_MN += np.array(
        [
            [
                (not point_in_box or _is_in_its_box(prompt)) and _points_at(prompt, target)
                for target in _targets(rollout)
            ]
            for prompt in rollout.answer.prompts
        ]
    )
    if tiers is not None:
        pairs_MN += _paid(_mask_ious(rollout), tiers)
    return _best_mean(pairs_MN)


def check_matching_box_point(
    *,
    iou_threshold: float = 0.5,
    box_distance: float = 10 / 840,
    tiers: Tiers | None = None,
    point_in_box: bool = False,
) -> None:
    """Raises ValueError unless the threshold is in [0, 1) and the distance in (0, 1]: shares, not pixels.

    And for tiers that `check_tiers` refuses, and a `point_in_box` that is neither true nor false.
    """
    if not isinstance(point_in_box, bool):
        raise ValueError(f"point_in_box is true or false, not {point_in_box!r}")
    if tiers is not None:
        check_tiers(tiers=tiers)
    if not 0 <= iou_threshold < 1 or not 0 < box_distance <= 1:
        raise ValueError(f"iou_threshold {iou_threshold} and box_distance {box_distance} are shares, within 0 and 1")


def _paid(ious_MN: np.ndarray, tiers: Tiers) -> np.ndarray:
    """What each pair's IoU pays."""
    return np.asarray(np.max([np.where(ious_MN > bound, float(pay), 0.0) for bound, pay in tiers], axis=0))


def _is_in_its_box(prompt: MaskPrompt) -> bool:
    """Whether the prompt's first foreground point lies in the prompt's own box; True without a box."""
    if prompt.box_xyxy is None or 1 not in prompt.labels:
        return True
    (x, y), (x1, y1, x2, y2) = prompt.points_xy[prompt.labels.index(1)], prompt.box_xyxy
    return x1 <= x <= x2 and y1 <= y <= y2


def _best_mean(pairs_MN: np.ndarray) -> float:
    """The highest sum of a one-to-one matching, divided by the larger count."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(pairs_MN, maximize=True)
    return float(pairs_MN[rows, columns].sum() / max(pairs_MN.shape))


def _targets(rollout: Rollout) -> np.ndarray:
    """The targets without ignored pixels, `(N, H, W)` bool, those with no pixel left out."""
    targets = rollout.targets if rollout.ignore is None else rollout.targets & ~rollout.ignore
    return np.asarray(targets[targets.any(axis=(1, 2))])


def _mask_ious(rollout: Rollout) -> np.ndarray:
    """IoU of every mask with every target, `(M, N)` float64."""
    from segrl.scoring import pair_ious

    return pair_ious(rollout.segmentation.masks, _targets(rollout), rollout.ignore)


def _boxes(rollout: Rollout) -> np.ndarray:
    """The answer's boxes, `(M, 4)` xyxy; a prompt without one has its mask's, or none (zeros) if that is empty."""
    rows: list[Box] = []
    for prompt, mask in zip(rollout.answer.prompts, rollout.segmentation.masks, strict=True):
        rows.append(prompt.box_xyxy or mask_to_box(mask.cpu().numpy()) or (0.0, 0.0, 0.0, 0.0))
    return np.array(rows, dtype=float).reshape(-1, 4)


def _target_boxes(rollout: Rollout) -> np.ndarray:
    return np.array([mask_to_box(target) for target in _targets(rollout)], dtype=float).reshape(-1, 4)


def _points_at(prompt: MaskPrompt, target: np.ndarray) -> bool:
    """Whether the prompt's first foreground point lies on the target."""
    first = next((xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label), None)
    return first is not None and _at(target, *first)


_SENTENCE_END = re.compile(r"\n|[!?。！？]|\.(?!\d)|(?<!\d)\.")
"""A full stop between two digits is a decimal point."""

_WORDS = 3
"""Shorter pieces are no sentences: "e.g." and the numbers of a list."""


def non_repeat(rollout: Rollout, *, allowed: int = 1) -> float:
    """1 if at most `allowed` sentences repeat an earlier one, else 0; what a group repeats is not compared.

    Judged is the reasoning, or the whole text where there is none; letter case and spaces do not count. No sentence at
    all pays 1. Source: VisionReasoner (arXiv 2505.12081), whose code forgives one, and takes "0.5" for two sentences.
    """
    reasoning = rollout.answer.reasoning
    found = sentences(rollout.text if reasoning is None else reasoning)
    return float(len(found) - len(set(found)) <= allowed)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in lower case, with single spaces; pieces of fewer than three words left out.

    >>> sentences("The box is 0.5 wide. The BOX  is 0.5 wide! 1. No.")
    ['the box is 0.5 wide', 'the box is 0.5 wide']
    """
    pieces = (piece.lower().split() for piece in _SENTENCE_END.split(text))
    return [" ".join(words) for words in pieces if len(words) >= _WORDS]


def check_non_repeat(*, allowed: int = 1) -> None:
    """Raises ValueError for fewer than 0."""
    if allowed < 0:
        raise ValueError(f"allowed is a number of sentences, not {allowed}")


def length_budget(rollout: Rollout, *, budget: int = 256, slack: float = 0.5) -> float:
    """1 for a completion of at most `budget` tokens, falling evenly to 0 at (1 + `slack`) × `budget`, in [0, 1].

    A failed answer pays 0, however short. Source: the soft length limit of DAPO (arXiv 2503.14476),
    moved from [-1, 0] to [0, 1].
    """
    if rollout.answer.status.is_failure:
        return 0.0
    return min(1.0, max(0.0, 1 - (rollout.n_tokens - budget) / (slack * budget)))


def check_length_budget(*, budget: int = 256, slack: float = 0.5) -> None:
    """Raises ValueError unless both are above 0."""
    if budget < 1 or slack <= 0:
        raise ValueError(f"budget ({budget} tokens) and slack ({slack} of it) must be above 0")


def first_iou(rollout: Rollout) -> float | None:
    """IoU of the first turn's mask in a conversation, in [0, 1]."""
    return rollout.turns[0].score.iou if rollout.turns else None


def improvement(rollout: Rollout) -> float | None:
    """IoU of the last turn's mask less that of the first turn's, in [-1, 1].

    It pays for a poor first answer as well: `iou` beside it weighs the last mask, and `first_iou` with at least this
    term's weight takes that gain away.
    """
    return rollout.turns[-1].score.iou - rollout.turns[0].score.iou if rollout.turns else None


def turn_cost(rollout: Rollout) -> float | None:
    """Less 1 for every turn after the first, "done" included: 0, -1, -2, …"""
    return 1.0 - len(rollout.turns) if rollout.turns else None
