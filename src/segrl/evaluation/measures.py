"""What is measured of an answer beside its score: numbers kept with the record, so that it need not be drawn again.

`pointing` says how a policy points: metrics say whether a run became better, and these numbers in what: whether boxes
got tighter, whether points lie where they should, and whether more answers aim at the right thing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.coordinates import are_shares, box_iou, lies_outside
from segrl.evaluation.bootstrap import ratio
from segrl.evaluation.records import EvalRecord
from segrl.masks import from_rle, mask_to_box
from segrl.types import Box, Example, Point, Status

if TYPE_CHECKING:
    from segrl.types import Segmentation


def measures(example: Example, segmentation: Segmentation, *, saliency: bool = False) -> Mapping[str, float]:
    """Numbers of one answer by name.

    `pixels`: pixels of the image that count (not `ignore`). `targets`: number of targets. `ref_id`: the
    data set's own number of the object, if it has one. Where boxes or points were written, `beyond` and `fractions`, 0
    or 1: a number lies beyond the image, all lie in 0–1. Where a target is there, 0 each for any answer but
    an OK one: `box_iou`, IoU of the answer's box with the true one, and `boundary_iou`. With `saliency`
    `weighted_f`, 0 also where nothing is there. `named_iou`: where the
    data set can tell which objects a reasoning names (`meta["named"]`, reasoning → `(H, W)` bool mask or
    None), IoU of the answer's mask with those. `objects`: masks with a pixel, `found`: targets that one of them fits
    with IoU of 0.5 or more, one to one.
    """
    keep = None if example.ignore is None else ~example.ignore
    truth = example.truth if keep is None else example.truth & keep
    found: dict[str, float] = {
        "pixels": float(truth.size if keep is None else keep.sum()),
        "targets": float(len(example.targets)),
    }
    found |= _instances(example, segmentation)
    found |= _frame_signs(segmentation, example.image.size)
    if isinstance(example.meta.get("ref_id"), int):
        found["ref_id"] = float(example.meta["ref_id"])
    is_ok = segmentation.answer.status is Status.OK
    if truth.any():
        mask = segmentation.union.cpu().numpy()
        counted = mask if keep is None else mask & keep
        found["box_iou"] = _box_iou(example, segmentation, mask) if is_ok else 0.0
        found |= _drawn(counted, truth, saliency) if is_ok else {"boundary_iou": 0.0}
    if saliency:
        found.setdefault("weighted_f", 0.0)
    return found | _agreement(example, segmentation)


SAME_INSTANCE = 0.5
"""IoU from which a mask is of a target, as detection counts it."""


def _instances(example: Example, segmentation: Segmentation) -> dict[str, float]:
    from scipy.optimize import linear_sum_assignment

    pairs = _pairs(example, segmentation)
    fits = pairs >= SAME_INSTANCE
    rows, columns = linear_sum_assignment(fits, maximize=True)
    objects = int(segmentation.masks.flatten(1).any(dim=1).sum()) if len(segmentation.masks) else 0
    return {"objects": float(objects), "found": float(fits[rows, columns].sum())}


def _pairs(example: Example, segmentation: Segmentation) -> np.ndarray:
    """IoU of each mask with each target, `(M, N)`."""
    from segrl.scoring import pair_ious

    return pair_ious(segmentation.masks, example.targets, example.ignore)


def object_ious(example: Example, segmentation: Segmentation) -> tuple[float, ...]:
    """Of each mask the IoU with the target that it fits best; 0 where there is no target."""
    pairs = _pairs(example, segmentation)
    return tuple(pairs.max(axis=1, initial=0.0).tolist())


def _frame_signs(segmentation: Segmentation, image_wh: tuple[int, int]) -> dict[str, float]:
    """`beyond` and `fractions`, 0 or 1: whether the written numbers look as if they meant another frame."""
    written = segmentation.written
    if written is None or not written.prompts:
        return {}
    beyond = any(lies_outside(prompt, image_wh) for prompt in written.prompts)
    return {"beyond": float(beyond), "fractions": float(are_shares(written.prompts, image_wh))}


def _agreement(example: Example, segmentation: Segmentation) -> dict[str, float]:
    """Whether the mask is of what the reasoning names; nothing where that cannot be told."""
    reasoning, read = segmentation.answer.reasoning, example.meta.get("named")
    named = read(reasoning) if read is not None and reasoning else None
    if named is None:
        return {}
    mask = segmentation.union.cpu().numpy()
    either = int((mask | named).sum())
    return {"named_iou": int((mask & named).sum()) / either if either else 0.0}


def _drawn(mask: np.ndarray, truth: np.ndarray, saliency: bool) -> dict[str, float]:
    """What needs the pixels."""
    import torch

    from segrl.scoring import boundary_iou, weighted_f

    rims = boundary_iou(torch.from_numpy(np.ascontiguousarray(mask))[None], torch.from_numpy(truth))
    return {"boundary_iou": float(rims[0])} | ({"weighted_f": weighted_f(mask, truth)} if saliency else {})


def _box_iou(example: Example, segmentation: Segmentation, mask: np.ndarray) -> float:
    """IoU of the box around the answer's boxes (without any: around its mask) with the box around the truth's."""
    written = [prompt.box_xyxy for prompt in segmentation.answer.prompts if prompt.box_xyxy is not None]
    answered = around(written) or mask_to_box(mask)
    given = [box for box in example.meta.get("boxes_xyxy", ()) if box is not None]
    known = [box for box in given if box[0] < box[2] and box[1] < box[3]]
    true = around(known) or mask_to_box(example.truth)
    return box_iou(answered, true) if answered is not None and true is not None else 0.0


def around(boxes: Sequence[Box]) -> Box | None:
    """The smallest box that holds all of `boxes`; None for none."""
    if not boxes:
        return None
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return (min(x1), min(y1), max(x2), max(y2))


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
