"""What is measured of an answer beside its score: numbers kept with the record, so that it need not be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segrl.coordinates import are_shares, box_iou, lies_outside
from segrl.masks import mask_to_box
from segrl.types import Box, Example, Status

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
    None), IoU of the answer's mask with those.
    """
    keep = None if example.ignore is None else ~example.ignore
    truth = example.truth if keep is None else example.truth & keep
    found: dict[str, float] = {
        "pixels": float(truth.size if keep is None else keep.sum()),
        "targets": float(len(example.targets)),
    }
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
