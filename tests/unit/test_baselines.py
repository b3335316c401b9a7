"""Baselines and the ceiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from segrl import segmenters
from segrl.evaluation import Decoding
from segrl.evaluation.replay import best_constant_box, ious_of_constant_box, oracle
from segrl.evaluation.run import evaluate_window
from segrl.loading import make_text_to_masks
from segrl.types import RELATIVE_1000, Example, MaskPrompt


def example(index: int, box: tuple[int, int, int, int], ignore: bool = False) -> Example:
    mask = np.zeros((1, 20, 40), dtype=bool)
    x1, y1, x2, y2 = box
    mask[0, y1:y2, x1:x2] = True
    image = Image.new("RGB", (40, 20), (index, 0, 0))
    return Example(str(index), str(index), image, "it", mask, ignore=~mask[0] if ignore else None)


def gold_ious(*examples: Example) -> list[float]:
    """IoU of the examples' own mask prompts, drawn as boxes."""
    policy = oracle("seg-r1", prompts="example")(examples)
    text_to_masks = make_text_to_masks(policy, segmenters.load("box"))
    return [record.iou for record in evaluate_window(policy, text_to_masks, examples, Decoding())]


def test_the_best_constant_box_is_found_where_all_truths_are_equal():
    examples = [example(i, (10, 5, 30, 15)) for i in range(3)]
    box = best_constant_box(examples)
    assert np.allclose(box, (0.25, 0.25, 0.75, 0.75))
    assert ious_of_constant_box(examples, box).tolist() == [1.0] * 3
    assert np.allclose(ious_of_constant_box(examples, (0, 0, 1, 1)), 200 / 800)


def test_ignored_pixels_are_left_out():
    assert ious_of_constant_box([example(0, (10, 5, 30, 15), ignore=True)], (0, 0, 1, 1)).tolist() == [1.0]


def test_gold_prompts_through_boxes_are_perfect_on_boxes():
    assert gold_ious(example(0, (10, 5, 30, 15)), example(1, (0, 0, 7, 20))) == [1.0, 1.0]


def test_gold_of_equal_images_and_queries_is_each_example_s_own():
    assert gold_ious(example(0, (10, 5, 30, 15)), example(0, (0, 0, 7, 20))) == [1.0, 1.0]


def test_gold_prompts_may_be_in_any_frame():
    plain = example(0, (10, 5, 30, 15))
    prompt = MaskPrompt((250, 250, 750, 750), frame=RELATIVE_1000)
    assert gold_ious(replace(plain, meta={"prompts": (prompt,)})) == [1.0]
