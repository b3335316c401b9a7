"""The tiny world: scenes, queries, gold answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrl.errors import RecipeError
from segrl.masks import mask_to_box
from segrl.tiny import resolve_policy
from segrl.tiny.gold import deepest
from segrl.tiny.scenes import MIN_VISIBLE, TinyScenes
from segrl.tiny.shapes import KINDS, SIDE, UNDERSTOOD, draw_mask
from segrl.types import Example

ALL = tuple(KINDS)


def test_a_scene_depends_on_seed_and_index_only():
    one, other = TinyScenes(40, 3, ALL), TinyScenes(16, 3, ALL)
    for index in (15, 0, 7):
        assert one[index].image_id == other[index].image_id
        assert one[index].query == other[index].query
        assert one[index].meta == other[index].meta
    assert TinyScenes(1, 4, ALL)[0].image_id != one[0].image_id


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_asks_for_what_its_masks_show(kind: str):
    for example in TinyScenes(12, 11, (kind,)):
        assert example.targets.shape[1:] == (SIDE, SIDE)
        assert all(target.any() for target in example.targets)
        assert (example.targets.sum(axis=0) <= 1).all(), "targets never overlap"
        expected = {"none": (0, 0), "pair": (2, 2), "several": (2, 4), "count": (2, 4)}.get(kind, (1, 1))
        assert expected[0] <= len(example.targets) <= expected[1]


def test_objects_stay_visible():
    from segrl.tiny.scenes import Layout

    for seed in range(30):
        layout = Layout(np.random.default_rng(seed))
        for thing, mask in zip(layout.things, layout.masks, strict=True):
            assert mask.sum() >= MIN_VISIBLE * draw_mask(thing).sum()
        assert [t.centre_xy[0] for t in layout.things] == sorted(t.centre_xy[0] for t in layout.things)
        assert len({t.name for t in layout.things}) == len(layout.things)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "count"])
def test_tight_gold_answers_point_at_the_targets(kind: str):
    for example in TinyScenes(10, 12, (kind,), gold="tight"):
        prompts = example.meta["prompts"]
        assert len(prompts) == len(example.targets)
        for prompt, target in zip(prompts, example.targets, strict=True):
            assert prompt.box_xyxy == mask_to_box(target)
            on = [bool(target[int(y), int(x)]) for x, y in prompt.points_xy]
            assert on == [label == 1 for label in prompt.labels]


def test_loose_gold_answers_are_loose_and_right_only_for_taught_kinds():
    def named_right(kind: str) -> float:
        tight, loose = TinyScenes(12, 13, (kind,), gold="tight"), TinyScenes(12, 13, (kind,), gold="loose")
        return float(np.mean([a.meta["reasoning"] == b.meta["reasoning"] for a, b in zip(tight, loose, strict=True)]))

    for kind in ALL:
        if kind != "count":
            assert (named_right(kind) == 1.0) == (kind in UNDERSTOOD)


def margins(example: Example) -> list[float]:
    """How far each side of the gold box that does not end at the image's edge lies outside, as a share of the side."""
    (x1, y1, x2, y2), box = mask_to_box(example.targets[0]), example.meta["prompts"][0].box_xyxy
    w, h = x2 - x1, y2 - y1
    outside = [(x1 - box[0]) / w, (y1 - box[1]) / h, (box[2] - x2) / w, (box[3] - y2) / h]
    return [share for share, edge in zip(outside, box, strict=True) if 0 < edge < SIDE]


def test_a_loose_answer_has_one_margin_and_an_uneven_one_four():
    loose, uneven = (
        [margins(example) for example in TinyScenes(80, 13, ("colour_shape",), gold=gold)]
        for gold in ("loose", "uneven")
    )
    assert max(np.ptp(sides) for sides in loose) <= 0.1 + 1e-9
    assert np.mean([np.ptp(sides) for sides in uneven]) > 0.2
    assert 0.18 < np.mean([np.mean(sides) for sides in loose]) < 0.27
    assert np.std([np.mean(sides) for sides in loose]) > 0.1


def test_unknown_kinds_are_named():
    with pytest.raises(RecipeError, match="colour"):
        TinyScenes(1, 0, ("color_shape",))


@given(st.integers(0, 10**6))
def test_deepest_point_lies_on_a_thin_mask(seed: int):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 11)) < 0.2
    if mask.any():
        x, y = deepest(mask)
        assert mask[int(y), int(x)]


def test_another_process_may_make_the_fresh_policy_first(tmp_path, monkeypatch):
    cache = tmp_path / "segrl"

    def save(made):
        for place in (made, cache / made.name):
            place.mkdir()
            (place / "config.json").touch()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("segrl.tiny.model.save", save)
    fresh = resolve_policy("tiny-fresh")
    assert [str(path) for path in cache.iterdir()] == [fresh]
