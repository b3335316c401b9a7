"""The terms beyond the papers' first: objects, points, texts, boundaries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tries import tries

from segrl import scoring
from segrl.errors import RecipeError
from segrl.masks import mask_to_box
from segrl.rewards import TERMS, Rollout, build_terms
from segrl.rewards.terms import sentences
from segrl.types import ORIGINAL, Answer, MaskPrompt, Segmentation, Status

H, W = 6, 10


def region(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((H, W), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def rollout(masks, targets, status=Status.OK, *, points=None, ignore=None, text="", n_tokens=5, reasoning=None):
    """An answer with a prompt per mask: its box and, unless given, a foreground point in it."""
    prompts = []
    for i, mask in enumerate(masks if status is Status.OK else []):
        box = mask_to_box(mask) or (0.0, 0.0, 1.0, 1.0)
        ys, xs = np.nonzero(mask)
        own = points[i] if points is not None else [((float(xs[0]), float(ys[0])), 1)] if len(xs) else []
        prompts.append(MaskPrompt(box, tuple(p for p, _ in own), tuple(label for _, label in own), ORIGINAL))
    shape = targets[0].shape if targets else (H, W)
    stack = np.stack(masks) if prompts else np.zeros((0, *shape), dtype=bool)
    segmentation = Segmentation(Answer(status, tuple(prompts), reasoning), torch.from_numpy(stack))
    truths = np.stack(targets) if targets else np.zeros((0, *shape), dtype=bool)
    (score,) = scoring.score([segmentation], [truths.any(axis=0)], [ignore])
    return Rollout("e", text, False, n_tokens, segmentation, score, truths, ignore)


@st.composite
def two_masks(draw):
    height, width = draw(st.sampled_from([(3, 7), (9, 4), (1, 6)]))
    bits = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    return [np.array(draw(bits)).reshape(height, width) for _ in range(2)]


JUDGES = {
    "matching": [{}, {"over": "box"}, {"tiers": [[0.5, 2], [0.8, 4]]}],
    "matching_box_point": [{}, {"tiers": [[0.5, 2], [0.7, 3], [0.8, 4]], "point_in_box": True}],
    "count_match": [{}],
    "format_fields": [{}],
    "boundary_iou": [{}, {"dilation_ratio": 0.3}],
    "points_on_target": [{}],
}


@tries(10)
@given(two_masks())
def test_the_perfect_answer_is_the_maximum_and_nothing_else_beats_it(pair):
    truth, other = pair
    targets = [truth] if truth.any() else []
    perfect = rollout(targets, targets or [], Status.OK if targets else Status.NO_TARGET)
    if not targets:
        perfect = replace(perfect, targets=np.zeros((0, *truth.shape), dtype=bool))
    empty = np.zeros_like(truth)
    rivals = [[other], [empty], [truth, other], [~truth], [np.ones_like(truth)], [truth, truth]]
    for name, variants in JUDGES.items():
        for options in variants:
            best = TERMS[name](perfect, **options)
            for masks in rivals:
                rival = rollout(masks, [truth]) if targets else rollout(masks, [empty])
                assert best >= (TERMS[name](rival, **options) or 0.0), (name, options)
            for status in (Status.NO_TARGET, Status.TRUNCATED):
                assert best >= TERMS[name](rollout([], [truth], status), **options)


LEFT, RIGHT = region(0, 1, 4, 5), region(6, 0, 9, 6)


@pytest.mark.parametrize(
    ("masks", "paid"),
    [
        ([LEFT, RIGHT], 1.0),
        ([RIGHT, LEFT], 1.0),
        ([LEFT], 0.5),
        ([LEFT, RIGHT, region(0, 0, 1, 1)], 2 / 3),
        ([LEFT, LEFT], 0.5),
        ([LEFT | RIGHT], 18 / 34 / 2),
    ],
)
def test_objects_are_matched_one_to_one(masks, paid):
    assert TERMS["matching"](rollout(masks, [LEFT, RIGHT])) == pytest.approx(paid)


def test_matching_takes_the_best_sum_and_not_the_first_best_pair():
    wide, narrow = region(0, 0, 10, 6), region(0, 0, 6, 6)
    a, b = region(0, 0, 8, 6), region(0, 0, 9, 6)
    value = TERMS["matching"](rollout([a, b], [wide, narrow]))
    assert value == pytest.approx((0.9 + 0.75) / 2)


def test_matching_by_tiers_and_by_boxes():
    half = region(0, 1, 4, 3)
    answer = rollout([LEFT, region(6, 0, 9, 3)], [LEFT, RIGHT])
    tiers = [[0.4, 1], [0.5, 2], [0.8, 4]]
    assert TERMS["matching"](answer, tiers=tiers) == (4 + 1) / 2
    assert TERMS["matching"](answer, over="box") == pytest.approx(0.75)
    hollow = rollout([half], [LEFT])
    no_box = replace(hollow.answer.prompts[0], box_xyxy=None)
    segmentation = replace(hollow.segmentation, answer=replace(hollow.answer, prompts=(no_box,)))
    assert TERMS["matching"](replace(hollow, segmentation=segmentation), over="box") == pytest.approx(0.5)


def test_ignored_pixels_and_targets_do_not_count_in_a_matching():
    ignore = region(6, 0, 10, 6)
    assert TERMS["matching"](rollout([LEFT], [LEFT, RIGHT], ignore=ignore)) == 1.0
    assert TERMS["boundary_iou"](rollout([LEFT | RIGHT], [LEFT], ignore=ignore)) == 1.0


@pytest.mark.parametrize(
    ("mask", "point", "paid"),
    [(LEFT, (1.5, 2.5), 3.0), (LEFT, (9.5, 5.5), 2.0), (region(0, 1, 4, 4), (1, 2), 2.0), (RIGHT, (1, 2), 1.0)],
)
def test_box_and_point_of_a_pair(mask, point, paid):
    assert TERMS["matching_box_point"](rollout([mask], [LEFT], points=[[(point, 1)]])) == paid


def test_one_matching_serves_the_sum_of_mask_box_and_point():
    """Two objects: matched by mask alone the pairs would be the other way round."""
    tiers = [[0.5, 2], [0.7, 3], [0.8, 4]]
    pay = TERMS["matching_box_point"]
    assert pay(rollout([LEFT], [LEFT]), tiers=tiers) == 4 + 3
    assert pay(rollout([RIGHT, LEFT], [LEFT, RIGHT]), tiers=tiers) == 7
    assert pay(rollout([LEFT], [LEFT, RIGHT]), tiers=tiers) == 3.5
    assert pay(rollout([], [], Status.NO_TARGET), tiers=tiers) == 7
    astray = rollout([LEFT], [LEFT], points=[[((9.0, 0.5), 1)]])
    assert pay(astray, tiers=tiers) == 4 + 2
    outside = rollout([LEFT], [LEFT | RIGHT], points=[[((8.0, 2.0), 1)]])  # on the target, not in its own box
    assert pay(outside) - pay(outside, point_in_box=True) == 1
    # With the box and the point of one object and the mask of another, one matching decides for one of them.
    answer = rollout([LEFT], [LEFT, RIGHT])
    moved = replace(answer.answer.prompts[0], box_xyxy=(6.0, 0.0, 9.0, 6.0), points_xy=((7.0, 2.0),))
    mixed = replace(answer, segmentation=replace(answer.segmentation, answer=replace(answer.answer, prompts=(moved,))))
    assert pay(mixed, tiers=tiers) == 4 / 2
    assert pay(mixed) + TERMS["matching"](mixed, tiers=tiers) == (3 + 4) / 2


def test_fields_are_graded_and_objects_counted():
    both, box_alone = rollout([LEFT, RIGHT], [LEFT]), rollout([LEFT], [LEFT], points=[[]])
    mixed = rollout([LEFT, RIGHT], [LEFT, RIGHT], points=[[((1.0, 2.0), 1)], []])
    grade, count = TERMS["format_fields"], TERMS["count_match"]
    assert [grade(one) for one in (both, box_alone, mixed)] == [2.0, 1.0, 1.5]
    assert [count(one) for one in (both, box_alone, mixed)] == [0.0, 1.0, 1.0]
    nothing = rollout([], [], Status.NO_TARGET)
    assert (grade(nothing), count(nothing)) == (2.0, 1.0)
    failed = rollout([], [LEFT], Status.BAD_SYNTAX)
    assert (grade(failed), count(failed)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("points", "paid"),
    [
        ([((1.0, 2.0), 1)], 1.0),
        ([((1.0, 2.0), 1), ((8.0, 2.0), 0)], 1.0),
        ([((1.0, 2.0), 0), ((8.0, 2.0), 1)], 0.0),
        ([((1.0, 2.0), 1), ((8.0, 2.0), 1), ((9.9, 5.9), 0), ((10.0, 6.0), 0)], 0.75),
        ([((8.0, 2.0), 0)], 0.0),
        ([], None),
    ],
)
def test_points_on_the_side_that_their_label_claims(points, paid):
    assert TERMS["points_on_target"](rollout([LEFT], [LEFT], points=[points])) == paid


@pytest.mark.parametrize(("n", "paid"), [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.0), (6, 0.5)])
def test_number_of_points_per_object(n, paid):
    answer = rollout([LEFT], [LEFT], points=[[((1.0, 2.0), 1)] * n])
    assert TERMS["number_of_points"](answer, low=2, high=3) == paid
    assert TERMS["number_of_points"](rollout([LEFT], [LEFT], points=[[]]), low=0) == 1.0


@pytest.mark.parametrize("name", ["matching", "boundary_iou", "points_on_target", "number_of_points"])
def test_silence_false_alarms_and_failures(name):
    nothing = np.zeros((H, W), dtype=bool)
    assert TERMS[name](rollout([], [nothing], Status.NO_TARGET)) == 1.0
    assert TERMS[name](rollout([LEFT], [nothing])) == 0.0
    assert TERMS[name](rollout([nothing], [nothing])) == 0.0
    assert TERMS[name](rollout([], [LEFT], Status.NO_TARGET)) == 0.0
    assert TERMS[name](rollout([], [nothing], Status.BAD_SYNTAX)) == 0.0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is at 0.5 of the width. It is at 0.7 of the width.", 2),
        ("A dog, e.g. a cat, e.g. a cow.", 2),
        ("1. The left one is big.\n2. The right one is small.", 2),
        ("", 0),
        ("是 这 个。", 1),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count


def test_repetition():
    said = "The dog is left. "
    repeated = [rollout([LEFT], [LEFT], reasoning=said * n) for n in (1, 2, 3)]
    assert [TERMS["non_repeat"](r) for r in repeated] == [1.0, 1.0, 0.0]
    assert TERMS["non_repeat"](repeated[1], allowed=0) == 0.0
    assert TERMS["non_repeat"](rollout([LEFT], [LEFT], text=said * 4)) == 0.0
    assert TERMS["non_repeat"](rollout([LEFT], [LEFT], reasoning="At 0.5. At 0.5. At 0.5. At 0.5 of 3.0 it is.")) == 1.0


@pytest.mark.parametrize(("tokens", "paid"), [(1, 1.0), (100, 1.0), (125, 0.5), (150, 0.0), (900, 0.0)])
def test_length_budget(tokens, paid):
    assert TERMS["length_budget"](rollout([LEFT], [LEFT], n_tokens=tokens), budget=100) == paid
    assert TERMS["length_budget"](rollout([], [LEFT], Status.NO_ANSWER, n_tokens=tokens), budget=100) == 0.0


@pytest.mark.parametrize(
    "section",
    [
        {"matching": {"over": "pixels"}},
        {"matching": {"tiers": [[0.8, 4], [0.5, 2]]}},
        {"matching_box_point": {"box_distance": 10}},
        {"matching_box_point": {"tiers": [[0.8, 4], [0.5, 2]]}},
        {"matching_box_point": {"point_in_box": "yes"}},
        {"boundary_iou": {"dilation_ratio": 15}},
        {"number_of_points": {"low": 3, "high": 2}},
        {"non_repeat": {"allowed": -1}},
        {"length_budget": {"budget": 0}},
    ],
)
def test_wrong_options_are_refused_before_a_run(section):
    name, options = next(iter(section.items()))
    with pytest.raises(RecipeError, match=f"rewards.{name}: "):
        build_terms({name: {"weight": 1, **options}})
