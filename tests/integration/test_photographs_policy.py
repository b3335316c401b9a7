"""The tiny policy with convolutional eyes: what it is asked and how its numbers are spelled."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

sys.path.append(str(Path(__file__).parents[2] / "proof"))

from photographs_policy import QUERIES, SIDE, STRIDE, build, build_processor, save

import segrl
from segrl import answers, loading, policies, tiny
from segrl.errors import ModelError, SegrlError
from segrl.training.options import freeze_vision_tower
from segrl.types import Frame


@pytest.fixture(scope="module")
def model():
    return build()


def test_numbers_of_its_frame_are_one_token_each():
    tokenizer = build_processor().tokenizer
    for number in range(SIDE + 1):
        assert len(tokenizer.encode(str(number))) == 1
    assert tokenizer.decode(tokenizer.encode("<bbox>[1,192,3,4]</bbox>")) == "<bbox>[1,192,3,4]</bbox>"


def test_it_is_saved_asked_and_read_like_any_policy(model, tmp_path):
    save(tmp_path, model)
    policy = policies.load(str(tmp_path))
    assert policy.answer_format == "seg-r1"
    assert policy.frame_for((640, 480)) == Frame.resized(SIDE, SIDE)
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    inputs = build_processor()(images=[image], text="<|image_pad|>", return_tensors="pt")
    assert inputs["input_ids"].shape[1] == (SIDE // STRIDE) ** 2
    assert inputs["pixel_values"].shape == (1, 3, SIDE, SIDE)


def test_equal_seeds_give_equal_weights(model):
    other = build()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_eyes_stay_as_they_are_in_use():
    model = build()
    freeze_vision_tower(model)
    model.train()
    tower = model.model.vision_tower
    assert not any(module.training for module in tower.modules())
    assert model.model.language_model.training
    before = {name: buffer.clone() for name, buffer in tower.named_buffers()}
    tower(torch.randn(2, 3, SIDE, SIDE))
    assert all(torch.equal(before[name], buffer) for name, buffer in tower.named_buffers())


def test_its_name_stands_for_the_shipped_weights(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "PHOTOS", tmp_path / "weights")
    with pytest.raises(ModelError, match="no weights for tiny-photos: train them with make photographs") as told:
        policies.load("tiny-photos")
    assert "\n" not in str(told.value)
    save(tmp_path / "weights", model)
    pipeline = loading.load("tiny-photos", max_new_tokens=2)
    assert type(pipeline.text_to_masks.segmenter).__name__ == "TinySegmenter"
    pipeline.segment(Image.new("RGB", (64, 48)), "The main object.")


def test_it_answers_one_question_in_the_words_of_its_training():
    limited = answers.get("seg-r1").limited_to(QUERIES)
    for query in (*QUERIES, "the main object", "All the  primary objects."):
        assert limited.prompt(query) == QUERIES[0]
    assert limited.wording == QUERIES[0]
    with pytest.raises(SegrlError, match="'the red cup': that needs a larger one, for instance --policy") as told:
        limited.prompt("the red cup")
    assert "\n" not in str(told.value)
    assert answers.get("seg-r1").prompt("the red cup").endswith("the red cup")


def test_the_scenes_policy_has_two_names():
    assert tiny.resolve_policy("tiny") == tiny.resolve_policy("tiny-scenes")
    assert loading.fitting_segmenter("tiny-scenes") == "grabcut"


def test_the_policy_for_photographs_is_the_default_once_its_weights_ship(tmp_path, monkeypatch):
    assert tiny.default_policy() == tiny.DEFAULT_POLICY
    monkeypatch.setattr(tiny, "PHOTOS", tmp_path)
    assert tiny.default_policy() == "tiny-scenes"
    (tmp_path / "model.safetensors").touch()
    assert tiny.default_policy() == "tiny-photos"
    assert loading.fitting_segmenter("tiny-photos") == "tiny"


OUTLINES = {
    "astronaut": (
        *((150, 25), (190, 14), (235, 20), (262, 55), (262, 95), (240, 115), (228, 165), (262, 190), (265, 235)),
        *((300, 235), (316, 300), (285, 310), (255, 345), (245, 400), (250, 448), (22, 448), (25, 380), (35, 260)),
        *((100, 190), (105, 160), (150, 130), (155, 110), (140, 95), (135, 60)),
    ),
    "cat": ((45, 0), (385, 0), (365, 60), (360, 130), (340, 200), (300, 265), (255, 298), (0, 298), (0, 110), (30, 70)),
    "rocket": ((213, 110), (219, 92), (228, 92), (235, 110), (237, 287), (213, 287)),
}
"""Outlines of the main objects, drawn by hand, in pixels of the demo's photographs."""


def outlined(name: str) -> tuple[Image.Image, np.ndarray]:
    """A photograph of the demo and the mask of its main object, about right."""
    with Image.open(Path(segrl.__file__).parent / "web" / "demo" / "photographs" / f"{name}.jpg") as file:
        image = file.convert("RGB")
    mask = Image.new("1", image.size)
    ImageDraw.Draw(mask).polygon(OUTLINES[name], fill=1)
    return image, np.array(mask)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_outlines_tell_a_mask_of_the_object_from_the_whole_image():
    model = loading.load("tiny-scenes", segmenter="tiny")
    drawn = {name: outlined(name) for name in OUTLINES}
    boxes = {name: segrl.masks.mask_to_box(mask) for name, (_, mask) in drawn.items()}
    found = {name: model.masks(drawn[name][0], [segrl.MaskPrompt(boxes[name])]).masks[0] for name in OUTLINES}
    assert sum(iou(found[name], drawn[name][1]) >= 0.6 for name in OUTLINES) >= 2
    assert sum(mask.mean() >= 0.6 for _, mask in drawn.values()) < 2


@pytest.mark.skipif(tiny.default_policy() != "tiny-photos", reason="no weights of tiny-photos ship yet")
def test_two_of_three_photographs_get_the_mask_of_their_main_object():
    model = segrl.load()
    right = []
    for name in OUTLINES:
        image, mask = outlined(name)
        result = model.segment(image, "the main object")
        right.append(iou(result.mask, mask) >= 0.6)
    assert sum(right) >= 2, dict(zip(OUTLINES, right, strict=True))
    assert "DUTS-TR" in (tiny.photos_dir() / "README.md").read_text()
    assert (tiny.photos_dir() / "model.safetensors").stat().st_size < 12e6
