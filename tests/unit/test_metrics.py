from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrl.metrics import METRICS, Sample, bootstrap_ci, compare, paired_bootstrap, ratio, summarize
from segrl.types import Score, Status


def sample(iou=0.5, *, image="a", kind=None, status=Status.OK, intersection=5, union=10) -> Sample:
    score = Score(status, iou, iou, intersection, union, target_area=union, predicted_area=intersection)
    return Sample(score, image, kind)


def failure(area: int, image="a", kind=None) -> Sample:
    """A failed answer as scoring scores it: 0 everywhere, its union the truth's area."""
    return sample(0.0, image=image, kind=kind, status=Status.BAD_SYNTAX, intersection=0, union=area)


def test_means_against_plain_arithmetic():
    samples = [sample(0.5, intersection=5, union=10), sample(1.0, intersection=30, union=30), failure(60)]
    result = summarize(samples)
    assert result["n"] == 3
    assert result["giou"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert result["ciou"] == pytest.approx(35 / 100)
    assert result["parse_rate"] == pytest.approx(2 / 3)
    assert result["by_status"] == {"bad_syntax": 1, "ok": 2}


def test_no_target_counts_as_read():
    right = sample(1.0, status=Status.NO_TARGET, intersection=0, union=0)
    result = summarize([right, right])
    assert (result["giou"], result["ciou"], result["parse_rate"]) == (1.0, None, 1.0)


def test_nothing_is_none_and_json():
    result = summarize([])
    assert all(result[name] is None and result[f"{name}_ci95"] is None for name in METRICS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_image_has_no_interval():
    assert summarize([sample(0.2), sample(0.8)])["giou_ci95"] is None
    assert summarize([sample(0.2), sample(0.8, image="b")])["giou_ci95"] is not None


def test_kinds_apart():
    result = summarize([sample(0.2, kind="size"), sample(0.6, kind="colour"), sample(0.4, kind="size"), sample(1.0)])
    assert list(result["by_kind"]) == ["size", "colour"]
    assert result["by_kind"]["size"]["giou"] == pytest.approx(0.3)
    assert result["by_kind"]["colour"]["n"] == 1


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_ci(values, resamples=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(1).random(50), 20)
    alone = bootstrap_ci(values)
    together = bootstrap_ci(values, clusters=np.repeat(np.arange(50), 20).tolist())
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(2).random(30)
    whole = bootstrap_ci(values, resamples=100)
    monkeypatch.setattr("segrl.metrics.bootstrap._CELLS", 300)
    assert bootstrap_ci(values, resamples=100) == pytest.approx(whole)


def test_pairs_cancel_what_they_share():
    before = np.random.default_rng(3).random(100)
    low, high = paired_bootstrap(before, before + 0.1)
    assert (low, high) == pytest.approx((0.1, 0.1))


def test_pairs_must_pair():
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="clusters"):
        bootstrap_ci([1.0, 2.0], clusters=["a"])
    with pytest.raises(ValueError, match="other samples"):
        compare([sample(image="a")], [sample(image="b")])


def test_resamples_without_denominator_are_left_out():
    low, high = bootstrap_ci([1.0, 0.0, 0.0], [2.0, 0.0, 0.0])
    assert (low, high) == (0.5, 0.5)


def test_compare_gains_by_kind():
    before = [sample(0.2, image=str(i), kind="ab"[i % 2]) for i in range(10)]
    after = [sample(0.2 + 0.5 * (i % 2), image=str(i), kind="ab"[i % 2]) for i in range(10)]
    gains = compare(before, after)
    assert gains["giou_gain"] == pytest.approx(0.25)
    assert gains["by_kind"]["a"]["giou_gain"] == pytest.approx(0)
    assert gains["by_kind"]["b"]["giou_gain_ci95"] == pytest.approx([0.5, 0.5])
    low, high = gains["giou_gain_ci95"]
    assert low < 0.25 < high


scores = st.tuples(st.floats(0, 1), st.integers(0, 50), st.integers(0, 50), st.sampled_from(list(Status)))


@given(st.lists(scores, max_size=30))
def test_metrics_lie_in_range_and_ignore_order(rows):
    samples = [
        sample(iou, image=str(i % 7), status=status, intersection=min(a, b), union=max(a, b))
        for i, (iou, a, b, status) in enumerate(rows)
    ]
    shuffled = random.Random(0).sample(samples, len(samples))
    one, other = summarize(samples), summarize(shuffled)
    for name in METRICS:
        assert one[name] is None or 0 <= one[name] <= 1 + 1e-12
        assert one[name] == pytest.approx(other[name])
        if one[f"{name}_ci95"] is not None:
            low, high = one[f"{name}_ci95"]
            assert low <= high
    assert sum(one["by_status"].values()) == one["n"] == len(rows)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_ratio_is_the_mean(values):
    assert ratio(values) == pytest.approx(sum(values) / len(values))
    assert ratio(values, np.zeros(len(values))) is None
