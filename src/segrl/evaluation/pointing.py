"""How a policy points: what its prompts are like, beside how good the masks are.

Metrics say whether a run became better; these numbers say in what: whether boxes got tighter, whether
points lie where they should, and whether more answers aim at the right thing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segrl.coordinates import box_iou
from segrl.evaluation.bootstrap import ratio
from segrl.evaluation.measures import around
from segrl.evaluation.records import EvalRecord
from segrl.masks import from_rle, mask_to_box
from segrl.types import Box, Point, Status


@dataclass(frozen=True)
class _Pointing:
    """One OK answer about a target that is there."""

    iou: float
    aimed: bool
    box_iou: float | None
    area_ratio: float | None
    positives_hit: list[bool]
    negatives_used: list[bool]


def pointing(records: Sequence[EvalRecord]) -> dict[str, Any]:
    """Averages over the OK answers of records whose target is there; None where nothing is averaged.

    `answers`: how many those are. `aimed`: share whose box has its centre in the true box (without
    boxes: share with a positive point on the target); `giou_aimed`: mean IoU of those. `box_iou`: mean IoU of the
    answer's box (around all of them) with the true box; `box_area_ratio`: median of its area over
    the true box's. `positives_on_target`: share of foreground points on the target; `negatives_useful`:
    share of background points inside the answer's box and off the target; `positives_per_answer`,
    `negatives_per_answer`. Over all records: `tokens`, the mean length, and `no_target_right`, the
    share of queries about nothing that are answered so.
    """
    found = [p for p in map(_pointing, records) if p is not None]
    areas = [p.area_ratio for p in found if p.area_ratio is not None]
    positives = [hit for p in found for hit in p.positives_hit]
    negatives = [used for p in found for used in p.negatives_used]
    absent = [record for record in records if record.target_area == 0]
    return {
        "answers": len(found),
        "aimed": ratio([p.aimed for p in found]),
        "giou_aimed": ratio([p.iou for p in found if p.aimed]),
        "box_iou": ratio([p.box_iou for p in found if p.box_iou is not None]),
        "box_area_ratio": float(np.median(areas)) if areas else None,
        "positives_on_target": ratio(positives),
        "negatives_useful": ratio(negatives),
        "positives_per_answer": ratio([len(p.positives_hit) for p in found]),
        "negatives_per_answer": ratio([len(p.negatives_used) for p in found]),
        "tokens": ratio([record.tokens for record in records]),
        "no_target_right": ratio([record.status is Status.NO_TARGET for record in absent]),
    }


def _pointing(record: EvalRecord) -> _Pointing | None:
    if record.status is not Status.OK or record.target_area == 0:
        return None
    truth = from_rle(record.truth)
    true_box = mask_to_box(truth)
    box = around([prompt.box_xyxy for prompt in record.prompts if prompt.box_xyxy is not None])
    labelled = [pair for p in record.prompts for pair in zip(p.points_xy, p.labels, strict=True)]
    positives = [_on(truth, point) for point, label in labelled if label == 1]
    negatives = [point for point, label in labelled if label == 0]
    used = [(box is None or _inside(point, box)) and not _on(truth, point) for point in negatives]
    if box is None or true_box is None:
        return _Pointing(record.iou, any(positives), None, None, positives, used)
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    area_ratio = _area(box) / _area(true_box)
    return _Pointing(record.iou, _inside(centre, true_box), box_iou(box, true_box), area_ratio, positives, used)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _inside(point: Point, box: Box) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


def _on(mask: np.ndarray, point: Point) -> bool:
    """Whether the pixel that a point (original pixels, on the image) falls on is True."""
    y, x = (min(int(v), side - 1) for v, side in zip(point[::-1], mask.shape, strict=True))
    return bool(mask[y, x])
