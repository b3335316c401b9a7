"""Reward terms of conversations, and what the engine makes of one: everything but them is of the last mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl import answers, turns
from segrl.rewards import Completions, RewardEngine, build_terms
from segrl.segmenters import load
from segrl.text_to_masks import TextToMasks
from segrl.turns import Conversation
from segrl.types import ORIGINAL

HW = (20, 40)
TERMS = {"iou": 1.0, "improvement": 1.0, "first_iou": 1.0, "turn_cost": 0.1, "format": 1.0}
DONE = "<think>fits</think> <answer>done</answer>"


def box(x1: int, y1: int, x2: int, y2: int) -> str:
    return (
        f"<think>there</think> <bbox>[{x1},{y1},{x2},{y2}]</bbox>, <points>[[{x1},{y1}]]</points>, <labels>[1]</labels>"
    )


def road() -> TextToMasks:
    return TextToMasks(answers.get("seg-r1"), lambda wh: ORIGINAL, load("box"))


def scored(*texts: str):
    """The values of a conversation about the left half of a picture."""
    conversation = Conversation(Image.new("RGB", HW[::-1]), "the left half")
    for text in texts:
        (conversation,) = turns.take(road(), [conversation], [text])
    truth = np.zeros((1, *HW), dtype=bool)
    truth[0, :, :20] = True
    batch = Completions(
        ["\n".join(texts)], [False], [7], ["e"], [conversation.image], ["i"], [truth], [None], ["q"], [conversation]
    )
    found = RewardEngine(road(), build_terms(TERMS)).score(batch)
    return {name: values[0] for name, values in found.values.items()}, found.rollouts[0]


def test_terms_are_of_the_last_mask_and_three_of_the_conversation():
    values, rollout = scored(box(0, 0, 40, 20), box(0, 0, 20, 20), DONE)
    assert values == {"iou": 1.0, "improvement": 0.5, "first_iou": 0.5, "turn_cost": -2.0, "format": 1.0}
    assert [one.score.iou for one in rollout.turns] == [0.5, 1.0, 1.0]
    assert rollout.masks.sum() == 400


def test_a_broken_last_turn_costs_a_turn_and_nothing_else():
    values, _ = scored(box(0, 0, 20, 20), "what")
    assert (values["iou"], values["improvement"], values["turn_cost"]) == (1.0, 0.0, -1.0)


def test_a_single_answer_has_none_of_them():
    image = Image.new("RGB", HW[::-1])
    truth = np.ones((1, *HW), dtype=bool)
    batch = Completions([box(0, 0, 40, 20)], [False], [7], ["e"], [image], ["i"], [truth], [None], ["q"])
    values = RewardEngine(road(), build_terms(TERMS)).score(batch).values
    assert (values["improvement"], values["first_iou"], values["turn_cost"]) == ([None], [None], [None])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_a_poor_first_answer_gains_nothing_beside_first_iou(first, worse, weight):
    """The same last mask pays no more after a worse first one, whatever the weight of both terms."""
    good, bad = scored(box(0, 0, first, 20), box(0, 0, 20, 20))[0], scored(box(0, 0, worse, 20), box(0, 0, 20, 20))[0]
    paid = [weight * (one["improvement"] + one["first_iou"]) for one in (good, bad)]
    assert paid[0] == pytest.approx(paid[1])
