"""The demo's strip of turns: what it shows after each, and what goes on from a turn that was corrected by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from segrl import answers
from segrl.pipeline import Pipeline
from segrl.policies import Completion
from segrl.segmenters import load
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL, MaskPrompt
from segrl.web.demo import turns
from segrl.web.demo.page import Asked
from segrl.web.demo.results import ResultStore
from segrl.web.demo.turns import Talk
from segrl.web.limits import Limits

BOX = "<think>there</think> <bbox>[10,8,30,28]</bbox>, <points>[[20,20]]</points>, <labels>[1]</labels>"
MOVED = "<think>further</think> <bbox>[12,8,32,28]</bbox>, <points>[[20,20]]</points>, <labels>[1]</labels>"
DONE = "<think>fits</think> <answer>done</answer>"
IMAGE = Image.new("RGB", (64, 48))


class Conversing:
    """Answers the n-th turn with the n-th text."""

    answer_format, settings = "seg-r1", None

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def frame_for(self, image_wh):
        return ORIGINAL

    def generate(self, images, prompts, **options):
        return [[Completion(self.texts[0])] for _ in prompts]

    def reply(self, chats, **options):
        return [[Completion(self.texts[len(chat.exchanges)])] for chat in chats]


def panel(*texts: str) -> SimpleNamespace:
    """What the strip needs of a panel, without a page."""
    pipeline = Pipeline(Conversing(*texts), TextToMasks(answers.get("seg-r1"), lambda wh: ORIGINAL, load("box")))
    store = ResultStore()
    made = SimpleNamespace(model=pipeline, kept=SimpleNamespace(store=store, limits=Limits()), outputs=[None] * 4)
    made.show = lambda result, name: ("status", result.text, {}, store.put(result, name))
    return made


def last(steps) -> tuple:
    return list(steps)[-1]


def test_the_turns_that_were_asked_for_are_shown_one_after_the_other():
    one = panel(BOX, MOVED, DONE)
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    shown = list(turns.begin(one, Asked("x", "a.png", "it", turns=4), key))
    talk = shown[-1][-1]
    assert [step.title for step in talk.steps] == ["answer", "answer", "done"]
    assert talk.shown == 2
    assert shown[-1][4].visible
    assert one.kept.store.get(talk.steps[-1].key).prompts == one.model.segment(IMAGE, "it", turns=3).prompts


def test_a_single_turn_shows_no_strip_but_can_be_gone_on_from():
    one = panel(BOX, MOVED)
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    *_, pictures, choice, button, talk = last(turns.begin(one, Asked("x", "a.png", "it"), key))
    assert (pictures.visible, choice.visible, button.visible) == (False, False, True)
    *_, talk = last(turns.go_on(one, talk, talk.steps[0].key))
    assert [step.said for step in talk.steps] == [BOX, MOVED]


def test_a_turn_is_chosen_corrected_by_hand_and_gone_on_from():
    one = panel(BOX, MOVED, DONE)
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    *_, talk = last(turns.begin(one, Asked("x", "a.png", "it", turns=3), key))
    *_, talk = turns.choose(one, talk, 0)
    assert talk.shown == 0
    drawn = MaskPrompt((40, 30, 60, 44), frame=ORIGINAL)
    edited = one.kept.store.put(one.model.masks(IMAGE, [drawn], "it"))
    *_, talk = last(turns.go_on(one, talk, edited))
    assert [step.title for step in talk.steps] == ["answer", "by hand", "done"]
    assert one.kept.store.get(talk.steps[-1].key).prompts == (drawn,)
    assert np.array_equal(one.kept.store.get(talk.steps[-1].key).mask, one.model.masks(IMAGE, [drawn]).mask)
    *_, talk = turns.choose(one, talk, 1)
    told, *_, talk = last(turns.go_on(one, talk, talk.steps[1].key))
    assert [step.title for step in talk.steps] == ["answer", "by hand", "done"]
    assert "has no words" not in told


def test_boxes_that_the_models_format_cannot_say_are_told():
    one = panel("<points>[[300,300]]</points>, <labels>[1]</labels>", DONE, DONE)
    drawn = one.kept.store.put(one.model.masks(IMAGE, [MaskPrompt((40, 30, 60, 44), frame=ORIGINAL)], "it"))
    one.model.text_to_masks = replace(one.model.text_to_masks, answer_format=answers.get("points-only"))
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    *_, talk = last(turns.begin(one, Asked("x", "a.png", "it"), key))
    assert "its answer format has no words for these boxes" in last(turns.go_on(one, talk, drawn))[0]


def test_what_is_gone_is_told():
    with pytest.raises(gr.Error):
        turns.choose(panel(BOX), Talk(), 0)
    with pytest.raises(gr.Error):
        list(turns.go_on(panel(BOX), Talk(), "nothing"))


def test_a_turn_that_cannot_be_read_keeps_the_mask_and_says_so():
    one = panel(BOX, "what?", DONE)
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    shown = list(turns.begin(one, Asked("x", "a.png", "it", turns=2), key))
    assert "could not be read" in shown[-1][0]
    talk = shown[-1][-1]
    assert [step.title for step in talk.steps] == ["answer", "not readable"]
    assert one.kept.store.get(talk.steps[1].key).prompts == one.model.segment(IMAGE, "it").prompts


@pytest.mark.parametrize(("first", "title"), [(DONE, "done"), ("what?", "not readable")])
def test_a_first_answer_that_is_none(first, title):
    """Nothing follows "done"; what cannot be read is told why, and answered again."""
    one = panel(first, BOX)
    key = one.kept.store.put(one.model.segment(IMAGE, "it"))
    *_, talk = last(turns.begin(one, Asked("x", "a.png", "it", turns=2), key))
    assert [step.title for step in talk.steps] == [title] + ["answer"] * (first != DONE)
    if first == DONE:
        with pytest.raises(gr.Error, match="said that it is done"):
            list(turns.go_on(one, talk, key))


def test_after_a_vote_the_model_is_shown_what_was_voted():
    one = panel(BOX, DONE)
    voted = replace(one.model.segment(IMAGE, "it"), samples=(BOX, MOVED))
    *_, talk = last(turns.begin(one, Asked("x", "a.png", "it"), one.kept.store.put(voted)))
    assert talk.steps[0].said == voted.prompts
