"""The vote that keeps instances: StAR's rule, each of its numbers, and how far the samples agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from segrl.errors import SegrlError
from segrl.evaluation.result import calibration
from segrl.evaluation.table import tabulate
from segrl.inference import Decoding, VoteRule, vote
from segrl.inference.vote import overlaps_of
from segrl.masks import box_to_mask
from segrl.result import Result
from segrl.types import ORIGINAL, Answer, Box, MaskPrompt, Segmentation, Status, Votes

HW = (40, 60)
LEFT, RIGHT, THIRD = (2.0, 2.0, 22.0, 22.0), (30.0, 2.0, 50.0, 22.0), (2.0, 26.0, 20.0, 38.0)
NEARLY_LEFT = (2.0, 2.0, 22.0, 23.0)


def said(*boxes: Box, scores: tuple[float, ...] | None = None) -> Segmentation:
    prompts = tuple(MaskPrompt(box, frame=ORIGINAL) for box in boxes)
    masks = torch.from_numpy(np.stack([box_to_mask(box, HW) for box in boxes]))
    return Segmentation(Answer(Status.OK, prompts), masks, None if scores is None else torch.tensor(scores))


def nothing(status: Status = Status.NO_TARGET) -> Segmentation:
    return Segmentation(Answer(status), torch.zeros((0, *HW), dtype=torch.bool))


def boxes_of(found: Segmentation) -> list[Box]:
    return [prompt.box_xyxy for prompt in found.answer.prompts]


def test_objects_stay_apart_and_agreement_counts_the_readable_samples():
    samples = [said(LEFT, RIGHT), said(NEARLY_LEFT, RIGHT), said(LEFT), nothing(Status.BAD_SYNTAX)]
    chosen, found = vote(samples)
    assert (chosen, boxes_of(found)) == (0, [LEFT, RIGHT])
    assert found.masks.shape == (2, *HW)
    assert found.votes == Votes(4, 3, 0, (1.0, 2 / 3))
    assert found.votes.confidence == pytest.approx(2 / 3)


def test_the_number_of_objects_is_the_one_that_most_answers_give():
    _, found = vote([said(LEFT), said(LEFT), said(LEFT, RIGHT), said(RIGHT)])
    assert boxes_of(found) == [LEFT]
    assert boxes_of(vote([said(LEFT), said(LEFT, RIGHT)])[1]) == [LEFT]  # of equally frequent counts the lower


@pytest.mark.parametrize(("share", "status"), [(0.5, Status.NO_TARGET), (0.6, Status.OK)])
def test_nothing_there_wins_with_its_share_of_the_readable(share: float, status: Status):
    samples = [nothing(), said(LEFT), nothing(Status.TRUNCATED)]
    _, found = vote(samples, VoteRule(nothing=share))
    assert found.answer.status is status
    assert found.votes.nothing == 1
    assert found.votes.confidence == 0.5


def test_a_share_that_is_reached_exactly_counts():
    """0.55 * 20 is more than 11 in floating point, and a float32 of 7/10 less than 0.7."""
    _, found = vote([nothing()] * 11 + [said(LEFT)] * 9, VoteRule(nothing=0.55))
    assert found.answer.status is Status.NO_TARGET
    samples = [said(LEFT, RIGHT)] * 7 + [said(LEFT, THIRD)] * 93
    assert len(vote(samples, VoteRule(least_votes=0.07))[1].masks) == 2
    _, found = vote([said(LEFT, RIGHT)] * 7 + [said(LEFT)] * 3, VoteRule(least_votes=0.7))
    result = Result.of(Image.new("RGB", HW[::-1]), "it", "", found)
    assert result.surer(0.7) is result
    assert all(share >= 0.7 for share in result.confidence.tolist())


@pytest.mark.parametrize(
    ("samples", "boxes"),
    [
        ([nothing(), said(LEFT)], []),  # half say so
        ([said(LEFT), said(RIGHT)], [LEFT]),  # one object, and the first of two that are alike
        ([said(LEFT), nothing(Status.BAD_SYNTAX)], [LEFT]),
        ([said(LEFT, RIGHT), said(RIGHT)], [RIGHT]),
        ([nothing(), nothing(Status.TRUNCATED)], []),
    ],
)
def test_a_vote_of_two(samples: list[Segmentation], boxes: list[Box]):
    chosen, found = vote(samples)
    assert boxes_of(found) == boxes
    assert len(found.votes.agreement) == len(found.masks) == len(boxes)
    assert not samples[chosen].answer.status.is_failure


def test_objects_whose_masks_are_empty():
    box = said(LEFT)
    empty = Segmentation(box.answer, torch.zeros_like(box.masks))
    chosen, found = vote([nothing(Status.BAD_SYNTAX), empty, empty])
    assert (chosen, found.votes.agreement) == (1, (1.0,))
    assert vote([empty, box])[1].votes.agreement == (0.5,)


def test_an_object_needs_its_share_of_the_votes():
    samples = [said(LEFT, RIGHT), said(LEFT, THIRD), said(LEFT, RIGHT), said(LEFT, RIGHT), said(LEFT, THIRD)]
    assert boxes_of(vote(samples, VoteRule(least_votes=0.7))[1]) == [LEFT]
    assert boxes_of(vote(samples)[1]) == [LEFT, RIGHT]


def test_what_is_one_object_is_an_option():
    samples = [said(LEFT), said(NEARLY_LEFT), said(NEARLY_LEFT)]
    assert vote(samples)[1].votes.agreement == (1.0,)
    assert vote(samples, VoteRule(same_object=0.99))[1].votes.agreement == (2 / 3,)


def test_the_best_scored_mask_or_what_most_hold():
    samples = [said(LEFT, scores=(0.5,)), said(NEARLY_LEFT, scores=(0.9,)), said(LEFT, scores=(0.6,))]
    _, best = vote(samples)
    assert boxes_of(best) == [NEARLY_LEFT]
    assert best.scores.tolist() == pytest.approx([0.9])
    _, consensus = vote(samples, VoteRule(mask="consensus"))
    assert np.array_equal(consensus.masks[0].numpy(), box_to_mask(LEFT, HW))


def test_one_answer_has_one_mask_in_an_object():
    _, found = vote([said(LEFT, NEARLY_LEFT), said(LEFT, NEARLY_LEFT)])
    assert found.votes.agreement == (1.0, 1.0)


def test_where_nothing_could_be_read_the_first_stands():
    chosen, found = vote([nothing(Status.BAD_SYNTAX), nothing(Status.TRUNCATED)])
    assert (chosen, found.answer.status) == (0, Status.BAD_SYNTAX)
    assert found.votes == Votes(2, 0, 0)
    assert found.votes.confidence == 0


def test_overlaps_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    masks = [rng.random(HW) < 0.3 for _ in range(4)]
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    packed = [np.packbits(mask) for mask in masks]
    assert np.allclose(overlaps_of(packed), expected)
    assert np.allclose(overlaps_of(packed, strip_bytes=40), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "samples is a whole number"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature is a number"),
        ({"turns": "3"}, "turns is a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number"),
        ({"vote": 3}, "vote is a mapping"),
        ({"vote": {"same_object": "all"}}, "vote.same_object is a share"),
        ({"samples": 4, "second_look": True}, "choose one"),
        ({"samples": 4, "turns": 2}, "choose one"),
        ({"sample": 4}, "did you mean samples"),
        ({"vote": {"same": 1}}, "same_object"),
        ({"vote": {"nothing": 0}}, "vote.nothing is a share"),
        ({"vote": {"mask": "worst"}}, "best or consensus"),
    ],
)
def test_a_wrong_option_is_one_line(values: dict, message: str):
    with pytest.raises(SegrlError, match=message):
        Decoding.of(values)


def test_a_vote_is_sampled_unless_somebody_says_otherwise():
    assert (Decoding().heat, Decoding(samples=4).heat, Decoding(samples=4, temperature=0.3).heat) == (0, 1, 0.3)
    assert Decoding.of({"samples": 4, "vote": {"mask": "consensus"}}).to_json()["vote"]["mask"] == "consensus"


def test_calibration_says_whether_agreement_predicts_overlap():
    table = tabulate([])
    objects = np.array([[0, 0.25, 0.1], [0, 1.0, 0.9], [1, 0.5, 0.2], [1, 1.0, 0.8], [1, 1.0, 0.3]])
    found = calibration(type(table)(**{**vars(table), "images": ("a", "b"), "objects": objects}))
    assert (found["n"], found["right"]) == (5, 0.4)
    assert found["auroc"] == pytest.approx(5 / 6)
    assert [(one["to"], one["n"], one["right"]["value"]) for one in found["bins"]] == [
        (0.4, 1, 0.0),
        (0.6, 1, 0.0),
        (1.0, 3, pytest.approx(2 / 3)),
    ]
    assert calibration(table) is None
