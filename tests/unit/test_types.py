"""The frozen classes refuse what cannot be."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from segrl.types import (
    ORIGINAL,
    RELATIVE_1000,
    UNKNOWN_FRAME,
    Answer,
    Example,
    Frame,
    FrameKind,
    MaskPrompt,
    Segmentation,
    Status,
)

BOX = (1.0, 2.0, 3.0, 4.0)


def test_status_order_is_the_order_of_the_tests() -> None:
    names = ["TRUNCATED", "NO_ANSWER", "BAD_SYNTAX", "BAD_VALUES", "NO_TARGET", "OK"]
    assert [status.name for status in Status] == names
    assert [status.name for status in Status if status.is_failure] == names[:4]


def test_frames() -> None:
    assert Frame.resized(840, 420) == Frame(FrameKind.RESIZED, (840, 420))
    assert len({ORIGINAL, RELATIVE_1000, UNKNOWN_FRAME, Frame.resized(1, 1), Frame.resized(1, 1)}) == 4


@pytest.mark.parametrize(
    ("kind", "size_wh"),
    [
        (FrameKind.RESIZED, None),
        (FrameKind.ORIGINAL, (10, 10)),
        (FrameKind.UNKNOWN, (10, 10)),
        (FrameKind.RESIZED, (0, 10)),
        (FrameKind.RESIZED, (10, -1)),
    ],
)
def test_frame_refuses(kind: FrameKind, size_wh: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="size"):
        Frame(kind, size_wh)


@pytest.mark.parametrize(
    ("box", "points", "labels", "message"),
    [
        (None, (), (), "needs a box, a point"),
        ((3.0, 2.0, 1.0, 4.0), (), (), "not a box"),
        ((1.0, 2.0, 1.0, 4.0), (), (), "not a box"),
        ((1.0, 4.0, 3.0, 2.0), (), (), "not a box"),
        ((1.0, 2.0, math.inf, 4.0), (), (), "not a box"),
        ((math.nan, 2.0, 3.0, 4.0), (), (), "not a box"),
        (BOX, ((1.0, 1.0),), (), "1 points but 0 labels"),
        (None, ((1.0, 1.0),), (1, 0), "1 points but 2 labels"),
        (BOX, ((1.0, 1.0),), (2,), "labels are 0 or 1"),
        (BOX, ((1.0, 1.0),), (True,), "labels are 0 or 1"),
        (BOX, ((1.0, 1.0),), (1.0,), "labels are 0 or 1"),
        (BOX, ((math.nan, 1.0),), (1,), "points must be finite"),
        (BOX, ((1.0, -math.inf),), (1,), "points must be finite"),
    ],
)
def test_mask_prompt_refuses(box: object, points: tuple, labels: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskPrompt(box, points, labels)  # type: ignore[arg-type]


def test_mask_prompt_compares_by_value_and_without_logits() -> None:
    prior = MaskPrompt(BOX, ((1.0, 1.0),), (1,), ORIGINAL, torch.zeros(1, 4, 4))
    assert prior == MaskPrompt(BOX, ((1.0, 1.0),), (1,), ORIGINAL)
    assert prior != MaskPrompt(BOX, ((1.0, 1.0),), (0,), ORIGINAL)
    assert MaskPrompt(BOX).frame == UNKNOWN_FRAME
    with pytest.raises(dataclasses.FrozenInstanceError):
        prior.labels = ()  # type: ignore[misc]


@pytest.mark.parametrize("status", list(Status))
def test_only_an_ok_answer_has_prompts(status: Status) -> None:
    prompts = (MaskPrompt(BOX),)
    right, wrong = (prompts, ()) if status is Status.OK else ((), prompts)
    assert Answer(status, right).prompts == right
    with pytest.raises(ValueError, match=status.name):
        Answer(status, wrong)


def _example(targets: np.ndarray) -> Example:
    return Example("a", "a", Image.new("RGB", (5, 3)), "the cat", targets)


def test_example_truth_is_the_union_of_its_targets() -> None:
    targets = np.zeros((2, 3, 5), dtype=bool)
    targets[0, 0, 0] = targets[1, 2, 4] = True
    assert _example(targets).truth.sum() == 2
    assert _example(targets).truth.shape == (3, 5)
    assert not _example(targets[:0]).truth.any()


@pytest.mark.parametrize("targets", [np.zeros((1, 5, 3), bool), np.zeros((3, 5), bool), np.zeros((1, 3, 5), np.uint8)])
def test_example_refuses_other_masks(targets: np.ndarray) -> None:
    with pytest.raises(ValueError, match="targets must be bool"):
        _example(targets)


def test_segmentation_union() -> None:
    masks = torch.zeros(2, 3, 5, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 2, 4] = True
    answer = Answer(Status.OK, (MaskPrompt(BOX), MaskPrompt(BOX)))
    assert int(Segmentation(answer, masks).union.sum()) == 2
    empty = Segmentation(Answer(Status.NO_TARGET), masks[:0]).union
    assert empty.shape == (3, 5)
    assert not empty.any()
