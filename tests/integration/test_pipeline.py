"""The object a user holds, with a scripted policy and the box segmenter."""

import numpy as np
import pytest
from PIL import Image
from scripted import ScriptedPolicy

import segrl
from segrl import segmenters
from segrl.errors import SegrlError
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.types import Frame, Status

TEXTS = {
    "two": "<think>both</think> <bbox>[0,0,50,50]</bbox>, <bbox>[50,50,100,100]</bbox>",
    "none": "<think>no</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>",
    "unread": "I would rather not",
}


@pytest.fixture
def pipeline() -> Pipeline:
    def query(image, prompt):
        return next(word for word in TEXTS if word in prompt)

    policy = ScriptedPolicy(TEXTS, key=query, frame=Frame.resized(100, 100))
    return Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))


def test_segment_gives_masks_at_the_images_own_size(pipeline):
    result = pipeline.segment(Image.new("RGB", (40, 20)), "two")
    assert (result.status, result.reasoning, result.text) == (Status.OK, "both", TEXTS["two"])
    assert result.masks.shape == (2, 20, 40)
    assert result.masks.dtype == bool
    assert result.masks.sum(axis=(1, 2)).tolist() == [200, 200]
    assert result.mask.sum() == 400
    assert [prompt.box_xyxy for prompt in result.prompts] == [(0, 0, 20, 10), (20, 10, 40, 20)]


def test_nothing_there_and_unreadable_are_told_apart(pipeline, tmp_path):
    Image.new("L", (6, 8)).save(tmp_path / "a.png")
    pairs = [(tmp_path / "a.png", "none"), (np.zeros((5, 7), dtype=np.uint8), "unread")]
    nothing, unread = pipeline.segment_many(pairs, batch_size=2)
    assert (nothing.status, nothing.masks.shape) == (Status.NO_TARGET, (0, 8, 6))
    assert (unread.status, unread.masks.shape) == (Status.NO_ANSWER, (0, 5, 7))
    assert not nothing.mask.any()


def test_results_come_in_order_and_lazily(pipeline):
    opened = []

    def pairs():
        for query in ("two", "none", "two"):
            opened.append(query)
            yield Image.new("RGB", (10, 10)), query

    results = pipeline.segment_many(pairs(), batch_size=2)
    assert next(results).status is Status.OK
    assert opened == ["two", "none"]
    assert [result.query for result in results] == ["none", "two"]


def test_load_takes_a_policy_and_a_segmenter_by_name(tmp_path):
    from segrl.tiny import model as tiny_model

    tiny_model.save(tmp_path, tiny_model.Shape(width=48, layers=1, mlp=48, vision_width=48, vision_layers=2))
    loaded = segrl.load(str(tmp_path), segmenter="box", max_new_tokens=4, input_wh=(112, 112), answer_format="seg-r1")
    result = loaded.segment(Image.new("RGB", (30, 20)), "the red circle")
    assert result.status.is_failure
    assert result.masks.shape == (0, 20, 30)
    with pytest.raises(SegrlError, match="seg-r1"):
        segrl.load(str(tmp_path), segmenter="box", answer_format="seg-r2")


def test_the_package_offers_what_it_has():
    assert segrl.Pipeline is Pipeline
    with pytest.raises(AttributeError, match="lod"):
        segrl.lod  # noqa: B018
