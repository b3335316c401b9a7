"""Turns with real policies: what they read, that an image is encoded once, and that memory stays flat."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from random_weights import save_random
from scripted import ScriptedPolicy
from small import save_policy

from segrl import answers, load, policies, segmenters
from segrl.answers import Move
from segrl.errors import SegrlError
from segrl.folder_job import Plan, find_jobs, segment_photos
from segrl.inference import Decoding
from segrl.pipeline import Pipeline
from segrl.policies import Chat, Completion, Exchange
from segrl.text_to_masks import TextToMasks
from segrl.types import RELATIVE_1000, MaskPrompt

BOX = "<think>there</think> <bbox>[100,100,600,600]</bbox>, <points>[[300,300]]</points>, <labels>[1]</labels>"
POINT = "<think>too much</think> <points>[[110,110]]</points>, <labels>[0]</labels>"
DONE = "<think>fits</think> <answer>done</answer>"


class Conversing(ScriptedPolicy):
    """Answers the n-th turn with the n-th text, and keeps the chats that it was given."""

    def __init__(self, *texts: str) -> None:
        super().__init__({}, default=texts[0])
        self.script, self.chats = texts, []

    def reply(self, chats, *, max_new_tokens, **options):
        self.chats.append(list(chats))
        return [[Completion(self.script[len(chat.exchanges)], n_tokens=7)] for chat in chats]


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def pipeline(policy, segmenter) -> Pipeline:
    return Pipeline(policy, TextToMasks(answers.get("seg-r1"), lambda wh: RELATIVE_1000, segmenter))


def test_an_image_is_encoded_once_and_each_turn_costs_one_decode(tmp_path):
    segmenter = segmenters.load(str(save_random("sam2", tmp_path)), device="cpu")
    policy = Conversing(BOX, POINT, DONE)
    result = pipeline(policy, segmenter).segment(photo(), "the cup", turns=5)
    assert (segmenter.encoder_calls, segmenter.decoder_calls) == (1, 2)
    assert [turn.move for turn in result.turns] == [Move.ANSWER, Move.POINTS, Move.DONE]
    assert result.n_tokens == 21
    assert result.text == POINT
    assert len(result.prompts[0].points_xy) == 2
    assert [len(chats[0].exchanges) for chats in policy.chats] == [0, 1, 2]
    assert "score" in policy.chats[-1][0].exchanges[0].words


def test_a_batch_goes_on_without_those_that_are_done():
    class Mixed(Conversing):
        def reply(self, chats, *, max_new_tokens, **options):
            self.chats.append(list(chats))
            return [
                [Completion(DONE if chat.exchanges and chat.prompt.endswith("a") else self.script[len(chat.exchanges)])]
                for chat in chats
            ]

    policy = Mixed(BOX, POINT, DONE)
    pairs = [(photo(0), "a"), (photo(1), "b")]
    results = list(pipeline(policy, segmenters.load("grabcut")).segment_many(pairs, batch_size=2, turns=3))
    assert [len(result.turns) for result in results] == [2, 3]
    assert [len(chats) for chats in policy.chats] == [2, 2, 1]


def test_one_turn_is_what_it_was():
    model = pipeline(Conversing(BOX), segmenters.load("box"))
    one = model.segment(photo(), "the cup")
    assert one.turns == ()
    again = model.segment(photo(), "the cup", turns=1)
    assert np.array_equal(one.masks, again.masks)


def test_what_cannot_take_turns_says_so():
    model = pipeline(ScriptedPolicy({}, default=BOX), segmenters.load("box"))
    with pytest.raises(SegrlError, match="answers single requests only"):
        model.segment(photo(), "the cup", turns=2)
    with pytest.raises(SegrlError, match="turns is a whole number from 1 on, not 0"):
        model.segment(photo(), "the cup", turns=0)


def test_somebody_takes_over_and_the_policy_sees_it():
    policy = Conversing(BOX, DONE, DONE)
    model = pipeline(policy, segmenters.load("box"))
    drawn = model.masks(photo(), [answers.parse(BOX, "seg-r1").prompts[0]]).prompts
    result = model.go_on(photo(), "the cup", [BOX, drawn])
    assert [turn.move for turn in result.turns] == [Move.ANSWER, Move.ANSWER, Move.DONE]
    assert result.prompts == drawn


def test_the_policy_reads_what_a_person_drew_as_its_own_answer():
    policy = Conversing(BOX, DONE, DONE)
    drawn = MaskPrompt((32, 12, 64, 36), ((40, 20),), (0,))  # pixels of 64×48
    pipeline(policy, segmenters.load("box")).go_on(photo(), "the cup", [BOX, [drawn]])
    first, theirs = policy.chats[-1][0].exchanges
    assert first.text == BOX
    assert theirs.text.endswith("<bbox>[500,250,1000,750]</bbox>, <points>[[625,417]]</points>, <labels>[0]</labels>")
    pipeline(policy, segmenters.load("box")).go_on(photo(), "the cup", [BOX, []])
    assert policy.chats[-1][0].exchanges[1].text.endswith("<bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>")


def test_what_the_format_cannot_say_is_shown_alone_and_told(caplog):
    policy = Conversing("<points>[[300,300]]</points>, <labels>[1]</labels>", DONE, DONE)
    text_to_masks = TextToMasks(answers.get("points-only"), lambda wh: RELATIVE_1000, segmenters.load("box"))
    result = Pipeline(policy, text_to_masks).go_on(photo(), "the cup", [[MaskPrompt((32, 12, 64, 36))]])
    assert [exchange.text for exchange in policy.chats[-1][0].exchanges] == [""]
    assert result.mask.sum() == 32 * 24
    assert "reads no answer that says it: points-only cannot say a box without points" in caplog.text


def test_what_is_drawn_outside_the_picture_loses_nothing():
    model = pipeline(Conversing(BOX, DONE, DONE), segmenters.load("box"))
    outside = MaskPrompt((100, 100, 120, 120))
    with pytest.raises(SegrlError, match="what was drawn gives no mask: "):
        model.go_on(photo(), "the cup", [BOX, [outside]])
    result = model.go_on(photo(), "the cup", [BOX, []])
    assert [turn.move for turn in result.turns] == [Move.ANSWER, Move.ANSWER, Move.DONE]
    assert not result.mask.any()


def test_nothing_follows_done():
    model = pipeline(Conversing(BOX, DONE, BOX), segmenters.load("box"))
    assert len(model.go_on(photo(), "the cup", [BOX, DONE]).turns) == 2


def test_further_turns_are_drawn_as_the_decoding_says():
    class Asked(Conversing):
        def reply(self, chats, **options):
            self.options = options
            return super().reply(chats, **options)

    policy = Asked(BOX, DONE)
    how = Decoding(temperature=0.5, seed=3, max_new_tokens=9)
    pipeline(policy, segmenters.load("box")).go_on(photo(), "the cup", [BOX], decoding=how)
    assert (policy.options["temperature"], policy.options["seed"], policy.options["max_new_tokens"]) == (0.5, 3, 9)


def test_a_policy_of_transformers_reads_its_turns(tmp_path):
    """A chat reads what TRL's trainer concatenates: the answer, the end of its message, the picture and the words."""
    policy = policies.load(str(save_policy(tmp_path)), device="cpu")
    image = photo()
    chat = Chat(image, "Identify and segment it", (Exchange(DONE, image, "area 10%"),))
    ((one,),) = policy.reply([chat], max_new_tokens=4)
    assert one.n_tokens <= 4
    assert policy._transcript(chat) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Identify and segment it<|im_end|>\n"
        f"<|im_start|>assistant\n{DONE}<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>area 10%<|im_end|>\n<|im_start|>assistant\n"
    )
    ((plain,),) = policy.reply([Chat(image, "Identify and segment it")], max_new_tokens=4)
    assert plain.text == policy.generate([image], ["Identify and segment it"], max_new_tokens=4)[0][0].text
    spoilt = Chat(image, "it", (Exchange("<|image_pad|><|im_end|>no", image, "<|vision_start|>area"),))
    assert policy._transcript(spoilt).count("<|image_pad|>") == 2


def test_the_tiny_policy_takes_turns():
    model = load("tiny", device="cpu")
    result = model.segment(photo(), "the red circle", turns=2)
    assert len(result.turns) in (1, 2)
    assert result.masks.dtype == bool
    assert torch.is_tensor(model.text_to_masks.segmenter.encode([photo()])[0].tensors["bgr"])


def test_nothing_is_kept_of_pictures_that_were_answered():
    """Memory stays flat however many pictures there are."""
    model = pipeline(Conversing(BOX, POINT, DONE), segmenters.load("grabcut"))
    alive: list[weakref.ref[Image.Image]] = []

    def pairs():
        for seed in range(12):
            image = photo(seed)
            alive.append(weakref.ref(image))
            yield image, "it"

    model.policy.chats = _Forgetful()
    for result in model.segment_many(pairs(), batch_size=2, turns=3):
        assert len(result.turns) == 3
    del result
    gc.collect()
    assert sum(one() is not None for one in alive) <= 2


class _Forgetful(list):
    def append(self, item):
        """Keeps nothing."""


def test_a_folder_takes_turns_and_goes_on_as_it_began(tmp_path):
    """An image is finished with its line in the journal; a folder of one turn is not gone on with three."""
    photo().save(tmp_path / "a.png")
    policy = {"policy": "tiny", "segmenter": "grabcut"}
    plan = Plan(tmp_path / "out", ("png",), {**policy, "decoding": {"turns": 2}}, 1)
    jobs = find_jobs([str(tmp_path / "a.png")], ["it"]).jobs
    assert segment_photos(jobs, plan).new == 1
    assert segment_photos(jobs, plan).skipped == 1
    with pytest.raises(SegrlError, match="turns"):
        segment_photos(jobs, dataclasses.replace(plan, policy=policy))
