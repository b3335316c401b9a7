"""A conversation of turns: what a text means after an earlier one, and that nothing good is ever lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tries import tries

from segrl import answers, turns
from segrl.answers import Move
from segrl.errors import SegrlError
from segrl.segmenters import load
from segrl.text_to_masks import TextToMasks
from segrl.turns import Conversation, TurnView
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status

BOX = "<think>there</think> <bbox>[10,8,50,40]</bbox>, <points>[[30,20]]</points>, <labels>[1]</labels>"
MOVED = "<think>too far left</think> <bbox>[12,8,52,40]</bbox>, <points>[[30,20]]</points>, <labels>[1]</labels>"
ELSEWHERE = "<think>wrong one</think> <bbox>[60,30,90,60]</bbox>, <points>[[70,40]]</points>, <labels>[1]</labels>"
POINT = "<think>too much</think> <points>[[12,10]]</points>, <labels>[0]</labels>"
NOTHING = "<think>none</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>"
DONE = "<think>fits</think> <answer>done</answer>"
BROKEN = "<think>what</think> <bbox>[10,8,"


def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = rng.normal(110, 12, (64, 96, 3))
    pixels[12:36, 16:44] += (90, -60, -60)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def road(segmenter: str = "grabcut") -> TextToMasks:
    return TextToMasks(answers.get("seg-r1"), lambda wh: ORIGINAL, load(segmenter))


def talk(*texts: str, segmenter: str = "grabcut", truncated: bool = False) -> Conversation:
    """A conversation of these texts, the last of them perhaps cut off."""
    conversation = Conversation(picture(), "the block")
    for i, text in enumerate(texts):
        cut = truncated and i == len(texts) - 1
        [conversation] = turns.take(road(segmenter), [conversation], [text], truncated=[cut])
    return conversation


@pytest.mark.parametrize(
    ("texts", "moves"),
    [
        ([BOX, DONE], [Move.ANSWER, Move.DONE]),
        ([BOX, POINT, MOVED], [Move.ANSWER, Move.POINTS, Move.ANSWER]),
        ([POINT, POINT], [Move.ANSWER, Move.POINTS]),
        ([NOTHING, BOX], [Move.ANSWER, Move.ANSWER]),
        ([NOTHING, POINT], [Move.ANSWER, Move.ANSWER]),
        ([BOX, NOTHING], [Move.ANSWER, Move.ANSWER]),
        ([BROKEN, BOX, BROKEN], [Move.BROKEN, Move.ANSWER, Move.BROKEN]),
        ([DONE], [Move.DONE]),
    ],
)
def test_moves(texts, moves):
    assert [turn.move for turn in talk(*texts).turns] == moves


def test_points_are_added_to_the_object_and_everything_else_stays():
    stands = talk(BOX, POINT).stands
    [prompt] = stands.answer.prompts
    assert prompt.box_xyxy == (10, 8, 50, 40)
    assert prompt.points_xy == ((30, 20), (12, 10))
    assert prompt.labels == (1, 0)
    assert prompt.prior_logits is not None


def test_points_go_to_the_object_they_lie_on_and_the_other_keeps_its_mask():
    left, right = MaskPrompt((0, 0, 20, 20), frame=ORIGINAL), MaskPrompt((30, 0, 60, 20), frame=ORIGINAL)
    added = Answer(Status.OK, (MaskPrompt(None, ((40.0, 5.0),), (0,), ORIGINAL),))
    followed = answers.follow(added, (left, right))
    assert followed.prompts[0] is left
    assert followed.goes_on_from == (None, 1)
    assert followed.prompts[1].points_xy == ((40.0, 5.0),)
    again = answers.follow(added, followed.prompts)
    assert again.prompts == followed.prompts
    assert again.goes_on_from == (None, None)


def test_a_box_of_the_same_object_goes_on_from_its_mask_and_another_begins_anew():
    assert talk(BOX, MOVED).stands.answer.prompts[0].prior_logits is not None
    assert talk(BOX, ELSEWHERE).stands.answer.prompts[0].prior_logits is None


@pytest.mark.parametrize("segmenter", ["grabcut", "tiny"])
def test_a_segmenter_goes_on_from_the_earlier_mask(segmenter):
    """A second turn is not the same prompt decoded from nothing."""
    alone = BOX.replace("[[30,20]]", "[[30,20],[12,10]]").replace("[1]", "[1,0]")
    second, anew = talk(BOX, POINT, segmenter=segmenter).stands, talk(alone, segmenter=segmenter).stands
    assert second.answer.prompts == anew.answer.prompts
    assert second.masks.shape == anew.masks.shape == (1, 64, 96)
    assert second.logits is not None
    assert not bool(second.union[10, 12])


def test_a_segmenter_that_takes_no_mask_answers_turns_too():
    conversation = talk(BOX, POINT, segmenter="box")
    assert conversation.stands.logits is None
    assert int(conversation.stands.union.sum()) == 40 * 32


def test_a_broken_turn_loses_nothing():
    good, after = talk(BOX).stands, talk(BOX, BROKEN, "no", DONE).stands
    assert torch.equal(good.masks, after.masks)
    assert after.answer.status is Status.OK


def test_a_conversation_is_over_when_the_policy_says_so_or_is_cut_off():
    assert not talk(BOX, BROKEN).is_over
    assert talk(BOX, DONE).is_over
    cut = talk(BOX, BROKEN, truncated=True)
    assert cut.is_over
    assert cut.stands.answer.status is Status.OK
    assert talk(DONE).stands.answer.status.is_failure


def test_what_the_policy_is_shown():
    conversation = talk(BOX, BROKEN)
    shown, words = turns.feedback(conversation, TurnView())
    assert shown.size == (96, 64)
    assert words.startswith("not read: <bbox> is never closed, area ")
    assert words.endswith(turns.INSTRUCTION)
    crop, plain = turns.feedback(talk(BOX), TurnView("crop", instruction=False))
    assert crop.size < (96, 64)
    assert plain.startswith("area ")
    cutout, _ = turns.feedback(talk(BOX), TurnView("cutout"))
    mask = talk(BOX).stands.union.numpy()
    before, after = np.asarray(picture()), np.asarray(cutout)
    assert (after[mask] == before[mask]).all()
    assert after[~mask].max() < 40
    empty, words = turns.feedback(talk(NOTHING), TurnView("crop", instruction=False))
    assert empty.size == (96, 64)
    assert words == "area 0%"
    with pytest.raises(SegrlError, match="show is outline, cutout or crop, not 'edge'"):
        TurnView("edge")


def test_scores_are_told():
    _, words = turns.feedback(talk(BOX, segmenter="tiny"), TurnView(instruction=False))
    assert "score 0." in words


def test_a_person_takes_over():
    conversation = talk(ELSEWHERE)
    drawn = road().masks([Answer(Status.OK, (MaskPrompt((10, 8, 50, 40), frame=ORIGINAL),))], [picture()])[0]
    conversation = turns.person(conversation, drawn)
    assert conversation.turns[-1].by == "person"
    [after] = turns.take(road(), [conversation], [DONE])
    assert after.stands is drawn


@tries(60)
@given(st.lists(st.sampled_from([BOX, MOVED, ELSEWHERE, POINT, NOTHING, DONE, BROKEN, ""]), min_size=1, max_size=6))
def test_the_last_good_turn_stands(texts):
    conversation = talk(*texts, segmenter="box")
    good = [turn for turn in conversation.turns if turn.move in (Move.ANSWER, Move.POINTS)]
    if good:
        assert conversation.stands is good[-1].own
    else:
        assert conversation.stands.answer.status.is_failure
