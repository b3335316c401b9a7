"""What a result must beat: answers that do not look at the image, and answers that know the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segrl.masks import box_to_mask
from segrl.types import Box, Example


def ious_of_constant_box(examples: Sequence[Example], box: Box) -> np.ndarray:
    """`(n,)` float64: IoU of one filled box, the same in every image, with each example's truth.

    box: `(x1, y1, x2, y2)` as shares of the image's sides, 0–1. Pixels to be ignored are left out.
    """
    return np.array([_iou(box, *_truth(example)) for example in examples])


def best_constant_box(examples: Sequence[Example], *, steps: int = 20) -> Box:
    """The box (shares of the sides, on a lattice of `steps`) with the highest mean IoU over `examples`.

    Coordinate descent from the whole image, one side at a time over the whole lattice, until no side
    moves: each round can only gain, so it ends.
    """
    truths = [_truth(example) for example in examples]
    best: Box = (0.0, 0.0, 1.0, 1.0)
    score = _mean_iou(best, truths)
    improved = True
    while improved:
        improved = False
        for side in range(4):
            for place in np.linspace(0, 1, steps + 1).tolist():
                box = (*best[:side], place, *best[side + 1 :])
                if box[0] < box[2] and box[1] < box[3] and (found := _mean_iou(box, truths)) > score:
                    best, score, improved = box, found, True
    return best


def _truth(example: Example) -> tuple[np.ndarray, np.ndarray | None]:
    return example.truth, example.ignore


def _mean_iou(box: Box, truths: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> float:
    return float(np.mean([_iou(box, truth, ignore) for truth, ignore in truths]))


def _iou(box: Box, truth: np.ndarray, ignore: np.ndarray | None) -> float:
    height, width = truth.shape
    mask = box_to_mask((box[0] * width, box[1] * height, box[2] * width, box[3] * height), (height, width))
    if ignore is not None:
        mask, truth = mask & ~ignore, truth & ~ignore
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 0.0
