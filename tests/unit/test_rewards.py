from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl import answers, scoring, segmenters
from segrl.errors import RecipeError
from segrl.rewards import TERMS, Completions, RewardEngine, Rollout, build_terms
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL, Answer, MaskPrompt, Score, Segmentation, Status

ALL_PARTS = frozenset({"think", "bbox", "points", "labels", "answer"})
REQUIRED = frozenset({"think", "bbox", "points", "labels"})


def rollout(mask: np.ndarray, truth: np.ndarray, status: Status = Status.OK, parts=ALL_PARTS) -> Rollout:
    """An answer, a box and a point of `mask`, whose segmenter gave `mask`; a NO_TARGET or failed answer has none."""
    y, x = np.argwhere(mask)[0].tolist() if mask.any() else (0, 0)
    prompt = MaskPrompt((0.0, 0.0, 1.0, 1.0), ((float(x), float(y)),), (1,), ORIGINAL)
    prompts = (prompt,) if status is Status.OK else ()
    masks = torch.from_numpy(mask)[None] if prompts else torch.zeros((0, *mask.shape), dtype=torch.bool)
    segmentation = Segmentation(Answer(status, prompts, parts=parts), masks)
    targets = truth[None] if truth.any() else np.zeros((0, *truth.shape), dtype=bool)
    (score,) = scoring.score([segmentation], [truth])
    return Rollout("e", "text", False, 5, segmentation, score, targets, None, REQUIRED)


def with_iou(value: float) -> Rollout:
    empty = Segmentation(Answer(Status.TRUNCATED), torch.zeros((0, 2, 3), dtype=torch.bool))
    score = Score(Status.OK, value, value, 0, 0, 0, 0)
    return Rollout("e", "", False, 1, empty, score, np.ones((1, 2, 3), dtype=bool))


@st.composite
def masks(draw, count: int = 2):
    """`count` masks of one size that is not square."""
    height, width = draw(st.sampled_from([(3, 7), (9, 4), (1, 6), (12, 5)]))
    bits = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    return tuple(np.array(draw(bits)).reshape(height, width) for _ in range(count))


@given(masks())
def test_the_perfect_mask_is_the_maximum_and_an_empty_mask_never_beats_it(pair):
    truth, other = pair
    perfect = rollout(truth, truth, Status.OK if truth.any() else Status.NO_TARGET)
    rivals = [
        rollout(other, truth),
        rollout(~truth, truth),
        rollout(np.zeros_like(truth), truth),
        rollout(np.ones_like(truth), truth),
        rollout(truth, truth, Status.NO_TARGET),
        rollout(truth, truth, Status.TRUNCATED, parts=frozenset()),
    ]
    for term in build_terms(dict.fromkeys(TERMS, 1.0)):
        best = term(perfect) or 0.0  # a term that does not apply pays nothing
        assert all(best >= (term(rival) or 0.0) for rival in rivals), term.name


@pytest.mark.parametrize(
    ("iou", "paid"),
    [(0.0, 0), (0.5, 0), (0.500001, 2), (0.7, 2), (0.700001, 3), (0.8, 3), (0.800001, 4), (1.0, 4)],
)
def test_tiers_and_boundaries_of_sam_r1(iou, paid):
    assert build_terms({"iou_tiers": 1})[0](with_iou(iou)) == paid


def test_single_threshold_is_an_option():
    (term,) = build_terms({"iou_tiers": {"weight": 1, "tiers": [[0.5, 1]]}})
    assert [term(with_iou(v)) for v in (0.5, 0.6, 1.0)] == [0, 1, 1]


@pytest.mark.parametrize("tiers", [[], [[0.7, 1], [0.5, 2]], [[0.5, 2], [0.7, 1]], [[0.5, -1]], [[1, 2]]])
def test_tiers_that_do_not_rise_are_refused_before_a_run(tiers):
    with pytest.raises(RecipeError, match="tiers must rise"):
        build_terms({"iou_tiers": {"weight": 1, "tiers": tiers}})


FULL = np.ones((4, 6), dtype=bool)
NONE = np.zeros((4, 6), dtype=bool)


@pytest.mark.parametrize(
    ("truth", "status", "paid"),
    [
        (NONE, Status.NO_TARGET, 1.0),
        (NONE, Status.OK, 0.0),
        (NONE, Status.BAD_SYNTAX, 0.0),
        (NONE, Status.TRUNCATED, 0.0),
        (FULL, Status.NO_TARGET, 0.0),
        (FULL, Status.OK, None),
        (FULL, Status.BAD_VALUES, None),
    ],
)
def test_no_target(truth, status, paid):
    assert TERMS["no_target"](rollout(FULL, truth, status)) == paid


@pytest.mark.parametrize(
    ("status", "parts", "think", "answer", "everything"),
    [
        (Status.OK, ALL_PARTS, 1, 1, 1),
        (Status.NO_TARGET, ALL_PARTS, 1, 1, 1),
        (Status.OK, {"bbox"}, 0, 1, 0),
        (Status.OK, {"bbox", "points", "labels"}, 0, 1, 0),
        (Status.BAD_VALUES, ALL_PARTS, 1, 0, 0),
        (Status.TRUNCATED, {"think"}, 1, 0, 0),
        (Status.NO_ANSWER, set(), 0, 0, 0),
    ],
)
def test_format_terms(status, parts, think, answer, everything):
    r = rollout(FULL, FULL, status, frozenset(parts))
    assert TERMS["format_think"](r) == think
    assert TERMS["format_answer"](r) == answer
    assert TERMS["format"](r) == everything


def own_term(rollout: Rollout, *, per_token: float = 0.1) -> float:
    return -per_token * rollout.n_tokens


def broken_term(rollout: Rollout) -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "rewards is empty"),
        ({"iuo": 1}, "did you mean 'iou'"),
        ({"iou": "much"}, "needs a number"),
        ({"iou": {"weigth": 1}}, "needs a number"),
        ({"iou": True}, "needs a number"),
        ({"iou": {"weight": 1, "alpha": 2}}, "it takes none"),
        ({"iou_tiers": {"weight": 1, "tier": []}}, "did you mean 'tiers'"),
        ({"mine": {"weight": 1, "python": "nowhere.term"}}, "cannot import"),
        ({"mine": {"weight": 1, "python": "segrl.nothing"}}, "cannot import"),
        ({"mine": {"weight": 1, "python": "term"}}, "cannot import"),
        ({"mine": {"weight": 1, "python": "segrl.__version__"}}, "is no function"),
    ],
)
def test_wrong_sections(section, message):
    with pytest.raises(RecipeError, match=message):
        build_terms(section)


def engine(section) -> RewardEngine:
    frame_for = lambda image_wh: ORIGINAL  # noqa: E731
    return RewardEngine(TextToMasks(answers.get("seg-r1"), frame_for, segmenters.load("box")), build_terms(section))


def completions(*texts: str) -> Completions:
    image = Image.new("RGB", (20, 10))
    truth = np.zeros((1, 10, 20), dtype=bool)
    truth[0, 2:6, 4:14] = True
    n = len(texts)
    return Completions(
        texts, [False] * n, [7] * n, ["e"] * n, [image] * n, ["i"] * n, [truth] * n, [None] * n, ["q"] * n
    )


GOOD = "<think>x</think> <bbox>[4,2,14,6]</bbox>, <points>[[5,3]]</points>, <labels>[1]</labels>"


def test_engine_scores_texts_and_weighs_terms():
    batch = engine({"iou": 0.7, "s_measure": 0.3, "no_target": 5}).score(completions(GOOD, "nonsense"))
    assert batch.values["iou"] == [1.0, 0.0]
    assert batch.values["s_measure"] == pytest.approx([1.0, 0.0])
    assert batch.values["no_target"] == [None, None]
    assert batch.totals == pytest.approx([1.0, 0.0])
    assert [r.score.status for r in batch.rollouts] == [Status.OK, Status.NO_ANSWER]


def test_a_group_is_scored_together(monkeypatch):
    module = importlib.import_module("segrl.scoring")
    groups, whole = [], module._score_group
    monkeypatch.setattr(module, "_score_group", lambda group, *rest: groups.append(len(group)) or whole(group, *rest))
    engine({"iou": 1}).score(completions(*[GOOD] * 8))
    assert groups == [8]


def test_a_term_of_ones_own_by_import_path():
    section = {"short": {"weight": 2, "python": f"{__name__}.own_term", "per_token": 0.5}}
    assert engine(section).score(completions(GOOD)).totals == [-7.0]


def test_no_term_applies_is_none_and_a_broken_term_raises():
    assert engine({"no_target": 1}).score(completions(GOOD)).totals == [None]
    with pytest.raises(RecipeError, match="mine gave nan for a completion of example e"):
        engine({"mine": {"weight": 1, "python": f"{__name__}.broken_term"}}).score(completions(GOOD))
