"""Do a policy's boxes look as if their numbers were in another frame?

Numbers of a smaller frame crowd into the upper left of the image, numbers of a larger one lie beyond
it. If one factor brings most boxes onto the true ones, that is said too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segrl.coordinates import box_ious
from segrl.training.diagnosis.facts import GroupFacts

QUARTER, TRUE_QUARTER = 0.6, 0.3
"""Share of the boxes that lie in the upper left quarter, where at most this share of the true ones does."""
OUTSIDE = 0.3
"""Share of the answers that write numbers beyond the image."""
SCALES = np.geomspace(1 / 8, 8, 61)
MUCH_BETTER, GOOD_IOU, LIKE_ONE = 0.15, 0.4, 1.15
"""A factor speaks for another frame if boxes times it gain so much IoU, reach so much, and it is not nearly one."""


def other_frame(groups: Sequence[GroupFacts], enough: int) -> str | None:
    """The evidence as a sentence or two; None where there is none, and with fewer than `enough` answers."""
    named = [one for group in groups for one in group.completions if one.names_something or one.outside]
    if len(named) < enough:
        return None
    evidence = [_beyond(sum(one.outside for one in named) / len(named)), _crowded(groups, enough)]
    factor = _factor(groups, enough)
    if factor is None and not any(evidence):
        return None
    return " ".join(sentence for sentence in (*evidence, factor) if sentence)


def _beyond(share: float) -> str | None:
    return f"{share:.0%} of the answers write numbers beyond the image." if share > OUTSIDE else None


def _crowded(groups: Sequence[GroupFacts], enough: int) -> str | None:
    boxes = [box for group in groups for one in group.completions for box in one.boxes]
    truths = [box for group in groups for box in group.truth_boxes]
    if len(boxes) < enough:
        return None
    share, true_share = (sum(box[2] <= 0.5 and box[3] <= 0.5 for box in some) / len(some) for some in (boxes, truths))
    if share < QUARTER or true_share > TRUE_QUARTER:
        return None
    return f"{share:.0%} of the boxes lie in the upper left quarter, and {true_share:.0%} of the true ones."


def _factor(groups: Sequence[GroupFacts], enough: int) -> str | None:
    """What one factor for all boxes would gain, over answers with one box about one target."""
    pairs = [
        (one.boxes[0], group.truth_boxes[0])
        for group in groups
        for one in group.completions
        if len(one.boxes) == 1 and len(group.truth_boxes) == 1
    ]
    if len(pairs) < enough:
        return None
    said, true = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    means = [float(np.mean(box_ious(said * scale, true))) for scale in SCALES]
    best = int(np.argmax(means))
    as_is, scale = float(np.mean(box_ious(said, true))), float(SCALES[best])
    if 1 / LIKE_ONE < scale < LIKE_ONE or means[best] < GOOD_IOU or means[best] - as_is < MUCH_BETTER:
        return None
    return (
        f"Times {scale:.1f} the boxes would meet the true ones with a mean IoU of {means[best]:.2f}, not {as_is:.2f}."
    )
