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
    """The box (shares of the sides, corners on a lattice of `steps`) with the highest mean IoU over `examples`.

    All boxes of the lattice are tried; lattice lines are rounded to whole pixels, and pixels to be
    ignored are left out.
    """
    low, high = np.triu_indices(steps + 1, k=1)
    mean = np.mean([_lattice_ious(*_truth(example), steps, low, high) for example in examples], axis=0)
    row, column = np.unravel_index(int(mean.argmax()), mean.shape)
    x1, y1, x2, y2 = (float(place) / steps for place in (low[column], low[row], high[column], high[row]))
    return (x1, y1, x2, y2)


def _lattice_ious(
    truth: np.ndarray, ignore: np.ndarray | None, steps: int, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """IoU of every lattice box: `(K, K)`, rows `(low, high)` of y and columns `(low, high)` of x."""
    counted = np.ones_like(truth) if ignore is None else ~ignore
    inside, area = (_counts(mask, steps, low, high) for mask in (truth & counted, counted))
    union = area + (truth & counted).sum() - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _counts(mask: np.ndarray, steps: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pixels of `mask` in every lattice box, float64 `(K, K)`."""
    summed = np.pad(mask.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    ys, xs = (np.round(np.linspace(0, side, steps + 1)).astype(int) for side in mask.shape)
    table = summed[ys][:, xs]
    rows = table[high] - table[low]
    return rows[:, high] - rows[:, low]


def _truth(example: Example) -> tuple[np.ndarray, np.ndarray | None]:
    return example.truth, example.ignore


def _iou(box: Box, truth: np.ndarray, ignore: np.ndarray | None) -> float:
    height, width = truth.shape
    mask = box_to_mask((box[0] * width, box[1] * height, box[2] * width, box[3] * height), (height, width))
    if ignore is not None:
        mask, truth = mask & ~ignore, truth & ~ignore
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 0.0
