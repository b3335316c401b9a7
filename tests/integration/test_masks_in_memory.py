"""The masks that one question holds at once, however it is answered: within the bound that docs/security.md adds up."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from demo_panel import panel_of
from PIL import Image
from serving import png, running, text_of

from segrl import answers
from segrl.errors import DataError, SegrlError
from segrl.inference import Decoding
from segrl.inference.vote import STRIP
from segrl.masks import PackedMasks, box_to_mask
from segrl.pipeline import Pipeline
from segrl.policies import Completion
from segrl.result import Result
from segrl.segmenters import Embedding
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status
from segrl.web.demo.page import Asked
from segrl.web.demo.results import ResultStore
from segrl.web.limits import Limits, ServerSettings
from segrl.web.service import _packed, bounded

SIDE = 1000
LIMIT = 16 * SIDE * SIDE


class Boxes:
    """The boxes as masks, in memory that tracemalloc sees."""

    def encode(self, images):
        return [Embedding((image.height, image.width), {}) for image in images]

    def decode(self, embeddings, prompts):
        masks = [
            np.zeros((len(many), *one.image_hw), dtype=bool) for one, many in zip(embeddings, prompts, strict=True)
        ]
        for some, many in zip(masks, prompts, strict=True):
            for mask, prompt in zip(some, many, strict=True):
                mask[:] = box_to_mask(prompt.box_xyxy, mask.shape)
        return [torch.from_numpy(some) for some in masks]


class Crowds:
    """Answers with `count` boxes, other ones in every sample and turn."""

    answer_format, settings = "seg-r1", None

    def __init__(self, count: int) -> None:
        self.count = count

    def frame_for(self, image_wh):
        return ORIGINAL

    def text(self, seed: int) -> str:
        boxes = [[40 * i + seed, 10, 40 * i + 30 + seed, 100 + seed] for i in range(self.count)]
        return "".join(f"<bbox>{box}</bbox>" for box in boxes)

    def generate(self, images, prompts, *, num_samples=1, **options):
        return [[Completion(self.text(seed)) for seed in range(num_samples)] for _ in prompts]

    def reply(self, chats, **options):
        return [[Completion(self.text(len(chat.exchanges)))] for chat in chats]


def pipeline(count: int) -> Pipeline:
    policy = Crowds(count)
    return Pipeline(policy, TextToMasks(answers.get("seg-r1"), policy.frame_for, Boxes()))


DECODINGS = {
    "one answer": (16, Decoding()),
    "a vote": (16, Decoding(samples=8)),
    "a larger vote": (8, Decoding(samples=16)),
    "a second look": (5, Decoding(second_look=True)),
    "turns": (4, Decoding(turns=4)),
}
PICTURE = Image.new("RGB", (SIDE, SIDE))


@pytest.mark.parametrize("way", DECODINGS)
def test_the_masks_of_a_question_stay_within_the_bound(way):
    count, decoding = DECODINGS[way]
    model = bounded(pipeline(count), LIMIT)
    tracemalloc.start()
    try:
        result = model.segment(PICTURE, "the crowd", decoding=decoding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.status, len(result.masks)) == (Status.OK, count)
    assert peak < (2 if decoding.samples > 1 else 1) * LIMIT + 3 * STRIP
    assert np.array_equal(result.masks, pipeline(count).segment(PICTURE, "the crowd", decoding=decoding).masks)


@pytest.mark.parametrize("way", ["a larger vote", "a second look", "turns"])
def test_an_answer_of_more_than_its_share_cannot_be_read(way):
    count, decoding = DECODINGS[way]
    result = bounded(pipeline(count + 1), LIMIT).segment(PICTURE, "the crowd", decoding=decoding)
    assert (result.status, len(result.masks)) == (Status.BAD_VALUES, 0)


@pytest.mark.parametrize("way", ["a larger vote", "a second look", "turns"])
def test_where_not_one_mask_fits_nothing_is_generated(way):
    model = bounded(pipeline(1), SIDE * SIDE + 1)
    model.policy.count = None  # to write an answer would be a TypeError
    with pytest.raises(DataError, match="the masks of an image of 1000×1000 pixels are more than are made at once"):
        model.segment(PICTURE, "the crowd", decoding=DECODINGS[way][1])


def test_turns_are_not_gone_on_from_beyond_the_bound():
    model = bounded(pipeline(4), LIMIT)
    said = [model.policy.text(i) for i in range(4)]
    assert len(model.go_on(PICTURE, "the crowd", said).turns) == 5
    with pytest.raises(SegrlError, match="these turns together hold more masks than are made at once"):
        model.go_on(PICTURE, "the crowd", [*said, model.policy.text(4)])


def test_the_server_says_so_in_one_line():
    with running(ServerSettings(limits=Limits(max_mask_pixels=40 * 30))) as server:
        body = {"image": text_of(png()), "query": "box 3 4 20 25", "decoding": {"samples": 16}}
        refused = httpx.post(f"{server.url}/v1/segment", json=body, timeout=60)
        assert (refused.status_code, refused.json()["error"]) == (422, "invalid_request")
        assert refused.json()["detail"].startswith(
            "vote of 16 samples at temperature 1: the masks of an image of 40×30"
        )
        assert server.policy.batches == []


def test_the_page_says_so_too(tmp_path):
    one = panel_of(bounded(pipeline(1), 100_000), tmp_path)
    asked = Asked(one.kept.pictures.put(Image.new("RGB", (500, 200))), "a.png", "the crowd")
    asked = replace(asked, options=asked.options.model_copy(update={"samples": 16}))
    status, *_ = list(one.answer(asked))[-1]
    assert "vote of 16 samples at temperature 1: the masks of an image of 500×200 pixels are more" in status


def test_what_waits_takes_a_bit_a_pixel():
    masks = np.ones((4, 200, 300), dtype=bool)
    result = Result(Image.new("RGB", (300, 200)), "q", "", Answer(Status.OK, (MaskPrompt((0, 0, 9, 9)),) * 4), masks)
    store = ResultStore()
    for kept in (_packed(result).result.masks, PackedMasks.of(masks).nothing):
        assert (kept.shape, kept.base) == ((0, 200, 300), None)
    key = store.put(result)
    assert store._kept.get(key).result.masks.base is None
    assert np.array_equal(store.get(key).masks, masks)
