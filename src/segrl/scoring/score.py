"""Segmentations against ground truths → `Score`: the one place that knows what a failure is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from segrl.scoring.metrics import count, intersection_and_union, s_measure
from segrl.types import Score, Segmentation, Status

Mask = torch.Tensor | np.ndarray


def score(
    segmentations: Sequence[Segmentation],
    truths: Sequence[Mask],
    ignores: Sequence[Mask | None] | None = None,
) -> list[Score]:
    """One Score per segmentation: the union of its masks against `truths[i]`, `(H, W)` bool.

    ignores: `(H, W)` bool pixels left out, or None, per sample.
    A failed answer scores 0 in IoU and S-measure, also where the truth is empty, and its union is
    the truth's area. On an empty truth NO_TARGET scores 1 in both, and an OK answer 0 in both,
    even where its mask came out empty: it is a false alarm. NO_TARGET on a truth with pixels is the
    empty mask: IoU 0. Truths that are the same object (a group's) are scored together.
    """
    if len(segmentations) != len(truths):
        raise ValueError(f"{len(segmentations)} segmentations but {len(truths)} truths")
    skip = ignores if ignores is not None else [None] * len(truths)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (truth, ignore) in enumerate(zip(truths, skip, strict=True)):
        groups.setdefault((id(truth), id(ignore)), []).append(i)
    scores: dict[int, Score] = {}
    for rows in groups.values():
        group = [segmentations[i] for i in rows]
        scores.update(zip(rows, _score_group(group, truths[rows[0]], skip[rows[0]]), strict=True))
    return [scores[i] for i in range(len(segmentations))]


def _score_group(group: Sequence[Segmentation], truth: Mask, ignore: Mask | None) -> list[Score]:
    device = next((s.masks.device for s in group if len(s.masks)), group[0].masks.device)
    gt = torch.as_tensor(truth).to(device)
    keep = torch.ones_like(gt) if ignore is None else ~torch.as_tensor(ignore).to(device)
    gt = gt & keep
    pred = torch.stack([segmentation.union.to(device) for segmentation in group]) & keep
    intersection, union = intersection_and_union(pred, gt)
    columns = torch.stack([intersection, union, count(pred), s_measure(pred, gt)])
    area = int(gt.sum())
    rows = columns.T.tolist()
    return [
        _one(segmentation.answer.status, area, int(row[0]), int(row[1]), int(row[2]), row[3])
        for segmentation, row in zip(group, rows, strict=True)
    ]


def _one(status: Status, area: int, both: int, either: int, predicted: int, structure: float) -> Score:
    if status.is_failure:
        return Score(status, 0.0, 0.0, 0, area, area, 0)
    if area == 0:
        right = float(status is Status.NO_TARGET)
        return Score(status, right, right, both, either, area, predicted)
    return Score(status, both / either, structure, both, either, area, predicted)
