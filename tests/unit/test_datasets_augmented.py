"""Views of few images: the masks go with the pixels, nothing is cut, and the same options give the same views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl import datasets
from segrl.datasets.derived import Augmented
from segrl.errors import DataError
from segrl.training.recipe import parse_recipe
from segrl.types import Example


def example(targets: np.ndarray, name: str = "a", **more: object) -> Example:
    """An image in which each target has a grey of its own (100, 101, …) on black."""
    height, width = targets.shape[1:]
    values = np.zeros((height, width), dtype=np.uint8)
    for number, mask in enumerate(targets):
        values[mask] = 100 + number
    image = Image.fromarray(values).convert("RGB")
    return Example(name, name, image, "all of it", targets, tags={"kind": "x"}, **more)  # type: ignore[arg-type]


def rectangles(*boxes: tuple[int, int, int, int], hw: tuple[int, int] = (30, 40)) -> np.ndarray:
    targets = np.zeros((len(boxes), *hw), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(targets, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return targets


@given(
    x=st.integers(0, 39), y=st.integers(0, 29), w=st.integers(1, 40), h=st.integers(1, 30), seed=st.integers(0, 2**31)
)
def test_masks_go_with_their_pixels_and_are_never_cut(x: int, y: int, w: int, h: int, seed: int) -> None:
    one = example(rectangles((x, y, min(x + w, 40), min(y + h, 30)), (0, 0, 1, 1)))
    views = Augmented([one], {"views": 6, "seed": seed, "crop": 0.4, "flip": True, "light": 0})
    assert len(views) == 6
    assert views[0] is one
    for view in views[1:]:
        assert view.targets.sum(axis=(1, 2)).tolist() == one.targets.sum(axis=(1, 2)).tolist()
        pixels = np.asarray(view.image)[..., 0]
        assert set(pixels[view.targets[0] & ~view.targets[1]]) <= {100}
        assert set(pixels[view.targets[1]]) == {101}
        assert not pixels[~view.truth].any()
        assert (view.query, view.tags) == (one.query, one.tags)


def test_the_same_options_give_the_same_views_and_others_others() -> None:
    examples = [example(rectangles((10, 8, 20, 16)), name) for name in "ab"]
    first, again = (Augmented(examples, {"views": 5}) for _ in range(2))
    assert [view.image_id for view in first] == [view.image_id for view in again]
    assert [view.id for view in first][:6] == ["a", "a~1", "a~2", "a~3", "a~4", "b"]
    other = Augmented(examples, {"views": 5, "seed": 1})
    assert {view.image_id for view in first} & {view.image_id for view in other} == {"a", "b"}
    assert len({view.image.size for view in first}) > 3


def test_a_view_is_mirrored_only_if_asked() -> None:
    one = example(rectangles((0, 0, 5, 30), (35, 0, 40, 30)))  # the left one is 100, the right one 101
    for flip, mirrored in ((False, {False}), (True, {False, True})):
        views = Augmented([one], {"views": 20, "flip": flip, "light": 0})
        assert {bool(np.asarray(view.image)[0, 0, 0] == 101) for view in views} == mirrored


def test_light_changes_pixels_and_nothing_else() -> None:
    one = example(rectangles((0, 0, 40, 30)))
    greys = [np.asarray(view.image)[0, 0] for view in Augmented([one], {"views": 30, "light": 0.5})]
    assert all(25 <= value <= 225 for grey in greys for value in grey)
    assert len({tuple(grey) for grey in greys}) == 30


def test_nothing_there_stays_nothing_and_ignored_pixels_go_along() -> None:
    one = example(rectangles(hw=(30, 40)))
    assert all(
        view.targets.shape == (0, view.image.height, view.image.width) and min(view.image.size) >= 18  # 0.6 of 30
        for view in Augmented([one], {"views": 9})
    )
    for hw in ((1, 1), (2, 2), (2, 5)):
        for view in Augmented([example(rectangles(hw=hw))], {"views": 20, "crop": 0.49}):
            assert min(view.image.size) >= 1
    ignored = example(rectangles((10, 10, 12, 12)), ignore=rectangles((10, 10, 12, 12))[0])
    for view in Augmented([ignored], {"views": 9, "flip": True}):
        assert view.ignore is not None
        assert np.array_equal(view.ignore, view.targets[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views": 0}, "views from 1"),
        ({"views": 2.5}, "whole numbers"),
        ({"views": 2, "flip": 1}, "true or false"),
        ({"views": 2, "light": 1.5}, "less than 1"),
        ({"views": 2, "crop": 0.5}, "less than 0.5"),
        ({"view": 2}, "augment is"),
        ({}, "augment is"),
        (4, "augment is"),
    ],
)
def test_wrong_options_are_one_line(options: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        datasets.load("tiny", n=2, seed=0, augment=options)


def test_gold_answers_that_a_crop_would_make_wrong_are_refused() -> None:
    one = replace(example(rectangles((1, 1, 5, 5))), meta={"reasoning": "1 at (3,3)"})
    with pytest.raises(DataError, match="its reasoning would no longer fit"):
        Augmented([one], {"views": 2})[1]


def test_a_data_sets_own_boxes_stay_with_the_image_that_they_fit() -> None:
    one = replace(example(rectangles((1, 1, 5, 5))), meta={"boxes_xyxy": ((1, 1, 5, 5),), "ref_id": 7})
    whole, view = Augmented([one], {"views": 2})
    assert whole.meta == one.meta
    assert view.meta == {"ref_id": 7}


def test_held_out_data_are_not_augmented() -> None:
    recipe = parse_recipe(
        {
            "method": "grpo",
            "policy": "tiny",
            "segmenter": "box",
            "rewards": {"iou": 1.0},
            "dataset": {"name": "folder", "root": "x", "augment": {"views": 4}},
            "evaluation": {"dataset": {"query": "y"}},
        }
    )
    assert recipe.dataset.options["augment"] == {"views": 4}
    assert recipe.evaluation is not None
    assert recipe.evaluation.dataset.options == {"root": "x", "query": "y"}
