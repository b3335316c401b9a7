"""Measured examples that were trained on are found by the pixels of their images, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segrl import segmenters
from segrl.evaluation import EvalRecord, Overlap
from segrl.evaluation.overlap import overlap, read_overlap, words, write_overlap
from segrl.evaluation.replay import oracle
from segrl.evaluation.run import evaluate_window
from segrl.images import content_id
from segrl.inference import Decoding
from segrl.loading import make_text_to_masks
from segrl.types import Example


def example(name: str, shade: int) -> Example:
    image = Image.new("RGB", (20, 10), (shade, 0, 0))
    mask = np.zeros((1, 10, 20), dtype=bool)
    mask[0, 2:8, 4:16] = True
    return Example(name, content_id(image), image, "it", mask)


def records(examples: list[Example]) -> list[EvalRecord]:
    policy = oracle("seg-r1")(examples)
    return evaluate_window(policy, make_text_to_masks(policy, segmenters.load("box")), examples, Decoding())


TRAINED = [example(f"t{i}", i) for i in range(4)]


def test_other_images_are_held_out():
    found = overlap(TRAINED, records([example("a", 100), example("b", 101)]))
    assert found == Overlap(2, 4, 4, 0, 0)
    assert (words(found), found.warning, found.note) == ("held-out examples", "", "")


def test_the_same_pixels_under_another_name_are_found():
    found = overlap(TRAINED, records([example("copy of t1", 1), example("b", 101)]))
    assert found.same_image == 1
    assert words(found, "queries") == "queries (1 with training images)"
    assert found.warning.startswith("measured on training images: 1 of 2 examples (50%)")


def test_the_same_name_with_other_pixels_is_only_noted():
    found = overlap([replace(TRAINED[0], id="t0~3")], records([example("t0", 200)]))
    assert (found.is_held_out, found.same_id) == (True, 1)
    assert "1 measured examples have the id" in found.note


def test_a_large_training_set_is_read_in_part_and_that_is_said(tmp_path):
    found = overlap(TRAINED, records(TRAINED), limit=2)
    assert (found.compared, found.same_image) == (2, 2)
    assert "at least 2 of 4" in found.warning
    assert words(overlap(TRAINED, records(TRAINED))) == "training examples"
    assert "2 of 4 training examples were compared" in found.note
    write_overlap(found, tmp_path / "new" / "overlap.json")
    assert read_overlap(tmp_path / "new" / "overlap.json") == found
    assert read_overlap(tmp_path / "none.json") is None


@pytest.mark.parametrize("noun", ["examples", "queries"])
def test_what_nobody_compared_is_not_called_held_out(noun: str):
    assert words(None, noun) == noun
