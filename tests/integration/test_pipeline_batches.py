"""Many images at once: what fails stands alone, what does not fit is made smaller, what is known is found."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted import ScriptedPolicy

import segrl
from segrl import policies, segmenters
from segrl.errors import DataError, FrameError, ModelError, SegrlError, ServerError
from segrl.loading import fitting_segmenter, make_text_to_masks
from segrl.pipeline import AutoBatch, Batch, Pipeline, opened, windows
from segrl.policies.loading import find_settings
from segrl.segmenters.grabcut import BoxSegmenter
from segrl.types import RELATIVE_1000, MaskPrompt, Status

BOX = "<think>there</think> <bbox>[250,250,750,750]</bbox>"


class Limited(ScriptedPolicy):
    """Answers at most `fits` requests at a time, as a small device does."""

    def __init__(self, fits: int) -> None:
        super().__init__({}, default=BOX)
        self.fits, self.batches = fits, []

    def generate(self, images, prompts, **options):
        self.batches.append(len(prompts))
        if len(prompts) > self.fits:
            raise torch.OutOfMemoryError("too much")
        return super().generate(images, prompts, **options)


class Scored(BoxSegmenter):
    """Expects an IoU of its masks: 0.9, 0.8, …"""

    def decode_scored(self, embeddings, prompts):
        many = self.decode(embeddings, prompts)
        return [(masks, torch.tensor([0.9 - 0.1 * i for i in range(len(masks))])) for masks in many]


def build(policy, segmenter="box") -> Pipeline:
    made = segmenters.load(segmenter) if isinstance(segmenter, str) else segmenter
    return Pipeline(policy, make_text_to_masks(policy, made))


def pairs(n: int):
    return [(Image.new("RGB", (8 + i, 8)), "q") for i in range(n)]


def test_what_cannot_be_used_gives_its_error_in_its_place(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    asked = [*pairs(2), (tmp_path / "broken.jpg", "q"), *pairs(1)]
    results = list(build(Limited(8)).try_many(asked, batch_size=4))
    assert [isinstance(result, DataError) for result in results] == [False, False, True, False]
    assert [result.image.width for result in results if not isinstance(result, SegrlError)] == [8, 9, 8]
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(build(Limited(8)).segment_many(asked))


def test_an_image_that_the_policy_refuses_stands_alone():
    class Refusing(Limited):
        def generate(self, images, prompts, **options):
            if any(image.width == 10 for image in images):
                raise FrameError("too narrow")
            return super().generate(images, prompts, **options)

    results = list(build(Refusing(8)).try_many(pairs(6), batch_size=6))
    assert [type(result).__name__ for result in results] == ["Result"] * 2 + ["FrameError"] + ["Result"] * 3


@pytest.mark.parametrize(("status", "stops"), [(None, True), (503, True), (401, True), (413, False)])
def test_a_server_that_is_gone_stops_all(status, stops):
    class Served(Limited):
        def generate(self, images, prompts, **options):
            if any(image.width == 9 for image in images):
                raise ServerError("no", status)
            return super().generate(images, prompts, **options)

    results = build(Served(8)).try_many(pairs(4), batch_size=4)
    if stops:
        with pytest.raises(ServerError):
            list(results)
    else:
        assert [isinstance(result, SegrlError) for result in results] == [False, True, False, False]


def test_a_batch_that_does_not_fit_is_halved_for_good():
    policy = Limited(2)
    assert len(list(build(policy).segment_many(pairs(12), batch_size=8))) == 12
    assert policy.batches == [8, 4, 2, 2, 4, 2, 2, 2, 2]
    with pytest.raises(ModelError, match="8×8"):
        list(build(Limited(0)).segment_many(pairs(1)))


@given(st.integers(1, 200), st.integers(1, 70))
def test_auto_stops_at_the_fastest_batch(n, best):
    """A device that is no faster beyond `best` pairs: the batch ends within a factor of two of it, or at the limit."""
    batch, left = AutoBatch(), 40 * AutoBatch.LARGEST
    while left > 0:
        assert 1 <= batch.size <= AutoBatch.LARGEST
        batch.took(batch.size, max(batch.size, best) / n)
        left -= batch.size
    assert min(best, AutoBatch.LARGEST) / 2 <= batch.size <= min(max(best, 1) * 2, AutoBatch.LARGEST)


def test_auto_gives_the_same_answers_and_never_more_than_fit():
    policy = Limited(3)
    model = build(policy)
    assert len(list(model.segment_many(pairs(40), batch_size="auto"))) == 40
    first = len(policy.batches)
    assert len(list(model.segment_many(pairs(40), batch_size="auto"))) == 40
    assert max(policy.batches[first:]) <= 3
    with pytest.raises(SegrlError, match="at least one"):
        list(model.segment_many(pairs(1), batch_size=0))


def test_a_path_is_read_once_for_all_its_queries_and_a_buffer_each_time(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    path, buffer = tmp_path / "a.png", np.zeros((2, 2), np.uint8)
    first, second = opened([(path, "one"), (path, "two")])
    assert first[0] is second[0]

    def frames():
        for value in (1, 2):
            buffer[:] = value
            yield buffer, "q"

    assert [image.getpixel((0, 0))[0] for image, _ in opened(frames())] == [1, 2]


def test_large_images_make_small_windows(monkeypatch):
    monkeypatch.setattr("segrl.pipeline.OPEN_PIXELS", 150)
    made = ((Image.new("RGB", (10, 10)), "q") for _ in itertools.count())
    assert [len(window) for window in itertools.islice(windows(made, Batch(8)), 2)] == [2, 2]


def test_scores_are_what_the_segmenter_expects():
    two = "<bbox>[0,0,500,500]</bbox> <bbox>[0,0,900,900]</bbox>"
    found, nothing = build(
        ScriptedPolicy({"a": two, "Identify and segment b": "?"}, key=lambda _, p: p if "b" in p else "a"), Scored()
    ).segment_many([(Image.new("RGB", (9, 9)), q) for q in ("x", "b")])
    assert np.allclose(found.scores, [0.9, 0.8])
    assert nothing.scores.shape == (0,)
    assert build(Limited(1)).segment(Image.new("RGB", (9, 9)), "x").scores is None


def test_edited_mask_prompts_are_decoded():
    model, image = build(Limited(1)), Image.new("RGB", (20, 10))
    drawn = model.masks(image, [MaskPrompt((2, 3, 6, 5)), MaskPrompt((0, 0, 500, 500), frame=RELATIVE_1000)], "mine")
    assert drawn.masks.sum(axis=(1, 2)).tolist() == [8, 50]
    assert (drawn.query, drawn.status) == ("mine", Status.OK)
    assert drawn.overlay().size == image.size
    assert model.masks(image, []).masks.shape == (0, 10, 20)
    assert model.masks(image, [MaskPrompt((30, 3, 60, 5))]).status is Status.BAD_VALUES
    assert model.policy.batches == []


def test_a_stream_says_the_text_and_ends_in_the_result():
    model = build(Limited(1))
    stream = model.stream(Image.new("RGB", (20, 10)), "q")
    assert "".join(stream) == stream.text == BOX
    assert stream.result.masks.sum() == 50
    assert model.stream(Image.new("RGB", (20, 10)), "q").result.text == BOX
    stopped = model.stream(Image.new("RGB", (20, 10)), "q")
    stopped.close()
    with pytest.raises(SegrlError, match="stopped"):
        _ = stopped.result


def test_published_checkpoints_are_known_by_name(tmp_path):
    expected = {
        "geshang/Seg-R1-7B": ("seg-r1", "resized", (768, 768), "facebook/sam2.1-hiera-large"),
        "Ricky06662/Seg-Zero-7B": ("seg-zero", "resized", (840, 840), "facebook/sam2-hiera-large"),
        "Ricky06662/VisionReasoner-7B": ("json-list", "resized", (840, 840), "facebook/sam2-hiera-large"),
        "Qwen/Qwen2.5-VL-7B-Instruct": ("qwen-json", "smart_resize", None, "facebook/sam2.1-hiera-large"),
        "Qwen/Qwen3-VL-8B-Instruct": ("qwen-json", "relative_1000", None, "facebook/sam2.1-hiera-large"),
    }
    for name, (answer_format, frame, input_wh, segmenter) in expected.items():
        settings = policies.published(name).settings
        assert (settings.answer_format, settings.frame, settings.input_wh) == (answer_format, frame, input_wh)
        assert fitting_segmenter(name) == segmenter
    assert fitting_segmenter("tiny") == fitting_segmenter("tiny-fresh") == "grabcut"
    assert (
        policies.published("Qwen/Qwen3-VL-8B-Thinking").max_new_tokens
        > policies.published("Qwen/Qwen3-VL-8B").max_new_tokens
    )
    assert policies.published("someone/else") is None
    downloaded = tmp_path / "VisionReasoner-7B"
    downloaded.mkdir()
    (downloaded / "config.json").write_text("{}")
    assert find_settings(str(downloaded)).input_wh == (840, 840)
    (downloaded / "segrl.json").write_text('{"frame": "original"}')
    assert find_settings(str(downloaded)).input_wh is None


def test_an_unknown_policy_says_what_was_assumed(tmp_path, caplog):
    from segrl.tiny import model as tiny_model

    tiny_model.save(tmp_path, tiny_model.Shape(width=48, layers=1, mlp=48, vision_width=48, vision_layers=2))
    (tmp_path / "segrl.json").unlink()
    with caplog.at_level(logging.WARNING, "segrl"):
        segrl.load(str(tmp_path), segmenter="box")
    (message,) = [record.message for record in caplog.records if record.name.startswith("segrl")]
    assert all(part in message for part in (str(tmp_path), "qwen-json", "relative_1000", "segrl.json"))
    caplog.clear()
    segrl.load(str(tmp_path), segmenter="box", answer_format="seg-r1", frame="relative_1000")
    assert not [record for record in caplog.records if record.name.startswith("segrl")]
