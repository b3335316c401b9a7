"""Scores: the formulas' edges, the rules for failures, and that nothing beats the perfect mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tries import tries

from segrl import scoring
from segrl.types import ORIGINAL, Answer, MaskPrompt, Segmentation, Status

HW = (6, 9)
BOX = MaskPrompt((0, 0, 1, 1), frame=ORIGINAL)
masks_hw = hnp.arrays(bool, HW)


def square(y1: int, y2: int, x1: int, x2: int) -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


def segmentation(status: Status, mask: torch.Tensor | None = None) -> Segmentation:
    answer = Answer(status, (BOX,) if status is Status.OK else ())
    return Segmentation(answer, torch.zeros((0, *HW), dtype=torch.bool) if mask is None else mask[None])


def test_iou_by_hand():
    gt, empty = square(0, 4, 0, 4), torch.zeros(HW, dtype=torch.bool)
    pred = torch.stack([gt, square(0, 4, 2, 6), empty, ~gt])
    assert scoring.iou(pred, gt).tolist() == [1.0, pytest.approx(8 / 24), 0.0, 0.0]
    assert scoring.iou(pred, gt, ignore=square(0, 6, 4, 9)).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert scoring.iou(empty[None], empty).tolist() == [1.0]
    assert scoring.iou(pred[:0], gt).shape == (0,)
    assert scoring.iou(pred, gt).dtype == torch.float64


def test_masks_of_other_types_and_sizes_are_refused():
    gt = square(0, 4, 0, 4)
    with pytest.raises(ValueError, match="bool"):
        scoring.iou(gt[None].to(torch.uint8), gt)
    with pytest.raises(ValueError, match="against"):
        scoring.s_measure(gt[None], gt.T)


@tries(60)
@given(gt=masks_hw, other=masks_hw)
def test_nothing_beats_the_perfect_mask(gt, other):
    gt, pred = torch.from_numpy(gt), torch.from_numpy(np.stack([gt, other, np.zeros(HW, bool)]))
    for measure in (scoring.iou, scoring.s_measure, scoring.boundary_iou):
        values = measure(pred, gt)
        assert values[0] == pytest.approx(1.0)
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-12
        assert values[2] < values[0] or not gt.any()


def test_the_rim_of_a_square():
    from segrl.scoring import rim

    ring = rim(square(0, 5, 1, 6)[None], 1)[0]
    assert ring.sum() == 16
    assert not ring[1:4, 2:5].any()


@tries(60)
@given(mask=masks_hw, width=st.integers(1, 7))
def test_both_erosions_agree(mask, width):
    from segrl.scoring import _erode_on_device, _erode_on_host

    masks = torch.from_numpy(mask)[None]
    assert torch.equal(_erode_on_device(masks, width), _erode_on_host(masks, width))


def test_boundary_iou_sees_what_iou_forgives():
    gt = torch.zeros((60, 80), dtype=torch.bool)
    gt[5:55, 5:75] = True
    shifted = gt.roll(3, dims=1)[None]
    assert scoring.boundary_iou(shifted, gt) < scoring.iou(shifted, gt) - 0.2


@pytest.mark.parametrize("status", [s for s in Status if s.is_failure])
@pytest.mark.parametrize("empty", [True, False])
def test_a_failure_scores_nothing_even_where_nothing_is_the_truth(status, empty):
    truth = square(0, 0, 0, 0) if empty else square(0, 2, 0, 3)
    [score] = scoring.score([segmentation(status)], [truth])
    area = int(truth.sum())
    assert (score.iou, score.s_measure, score.intersection, score.union) == (0.0, 0.0, 0, area)
    assert (score.status, score.target_area, score.predicted_area) == (status, area, 0)


def test_nothing_there_is_right_only_when_said():
    nothing, something = square(0, 0, 0, 0), square(0, 2, 0, 3)
    said, alarm, hollow, missed = scoring.score(
        [segmentation(Status.NO_TARGET), segmentation(Status.OK, something), segmentation(Status.OK, nothing),
         segmentation(Status.NO_TARGET)],
        [nothing, nothing, nothing, something],
    )  # fmt: skip
    assert (said.iou, said.s_measure, said.union) == (1.0, 1.0, 0)
    assert (alarm.iou, alarm.s_measure, alarm.union, alarm.predicted_area) == (0.0, 0.0, 6, 6)
    assert (hollow.iou, hollow.s_measure) == (0.0, 0.0)
    assert (missed.iou, missed.union, missed.target_area) == (0.0, 6, 6)


def test_groups_and_single_samples_score_alike():
    truth = square(1, 5, 2, 7)
    found = [segmentation(Status.OK, square(0, 4, x, x + 4)) for x in range(4)] + [segmentation(Status.NO_ANSWER)]
    together = scoring.score(found, [truth] * 5)
    apart = scoring.score(found, [truth.numpy().copy() for _ in found])
    assert together == apart
    assert together[0].iou == pytest.approx(6 / 30)


def test_ignored_pixels_count_nowhere():
    truth, ignore = square(0, 4, 0, 4), square(0, 6, 4, 9)
    [score] = scoring.score([segmentation(Status.OK, square(0, 4, 0, 9))], [truth], [ignore])
    assert (score.iou, score.union, score.predicted_area) == (1.0, 16, 16)


def test_several_masks_are_one_answer():
    masks = torch.stack([square(0, 2, 0, 2), square(2, 4, 0, 2)])
    found = Segmentation(Answer(Status.OK, (BOX, BOX)), masks)
    assert scoring.score([found], [square(0, 4, 0, 2)])[0].iou == 1.0
