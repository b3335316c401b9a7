from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrl.evaluation import bootstrap_ci, paired_bootstrap
from segrl.evaluation.bootstrap import measure, measure_difference, ratio
from segrl.evaluation.catalogue import CATALOGUE, MEASURED, SCORED, Columns
from segrl.types import Status

METRICS = [metric for metric in CATALOGUE if metric.name in ("giou", "ciou", "s_measure", "parse_rate")]


def sample(iou=0.5, *, status=Status.OK, intersection=5, union=10) -> dict[str, float]:
    return {
        "iou": iou,
        "s_measure": iou,
        "intersection": intersection,
        "union": union,
        "target_area": union,
        "predicted_area": intersection,
        "failed": status.is_failure,
        "said_none": status is Status.NO_TARGET,
    }


def failure(area: int) -> dict[str, float]:
    """A failed answer as scoring scores it: 0 everywhere, its union the truth's area."""
    return sample(0.0, status=Status.BAD_SYNTAX, intersection=0, union=area)


def columns(samples: Sequence[dict[str, float]]) -> Columns:
    return {name: np.array([float(one.get(name, np.nan)) for one in samples]) for name in (*SCORED, *MEASURED)}


def measured(samples: Sequence[dict[str, float]], images: Sequence[str] | None = None) -> dict[str, Any]:
    return measure(columns(samples), images or ["a"] * len(samples), METRICS)


def test_means_against_plain_arithmetic():
    samples = [sample(0.5, intersection=5, union=10), sample(1.0, intersection=30, union=30), failure(60)]
    result = measured(samples)
    assert result["giou"]["value"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert result["ciou"]["value"] == pytest.approx(35 / 100)
    assert result["parse_rate"]["value"] == pytest.approx(2 / 3)


def test_no_target_counts_as_read():
    right = sample(1.0, status=Status.NO_TARGET, intersection=0, union=0)
    result = measured([right, right])
    assert [result[name]["value"] for name in ("giou", "ciou", "parse_rate")] == [1.0, None, 1.0]


def test_nothing_is_none_and_json():
    result = measured([])
    assert all(one == {"value": None, "ci95": None} for one in result.values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_image_has_no_interval():
    assert measured([sample(0.2), sample(0.8)])["giou"]["ci95"] is None
    assert measured([sample(0.2), sample(0.8)], ["a", "b"])["giou"]["ci95"] is not None


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
    monkeypatch.setattr("segrl.evaluation.bootstrap._CELLS", 300)
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


def test_resamples_without_denominator_are_left_out():
    low, high = bootstrap_ci([1.0, 0.0, 0.0], [2.0, 0.0, 0.0])
    assert (low, high) == (0.5, 0.5)


def test_a_difference_has_a_paired_interval():
    images = [str(i) for i in range(10)]
    before = columns([sample(0.2) for _ in images])
    after = columns([sample(0.2 + 0.5 * (i % 2)) for i in range(10)])
    giou = measure_difference(before, after, images, METRICS)["giou"]
    assert (giou["a"], giou["b"], giou["difference"]) == pytest.approx((0.2, 0.45, 0.25))
    low, high = giou["ci95"]
    assert low < 0.25 < high
    odd = measure_difference(
        *({k: v[1::2] for k, v in side.items()} for side in (before, after)), images[1::2], METRICS
    )
    assert odd["giou"]["ci95"] == pytest.approx([0.5, 0.5])


scores = st.tuples(st.floats(0, 1), st.integers(0, 50), st.integers(0, 50), st.sampled_from(list(Status)))


@given(st.lists(scores, max_size=30))
def test_metrics_lie_in_range_and_ignore_order(rows):
    samples = [sample(iou, status=status, intersection=min(a, b), union=max(a, b)) for iou, a, b, status in rows]
    images = [str(i % 7) for i in range(len(rows))]
    order = random.Random(0).sample(range(len(rows)), len(rows))
    one, other = measured(samples, images), measured([samples[i] for i in order], [images[i] for i in order])
    for name, found in one.items():
        assert found["value"] is None or 0 <= found["value"] <= 1 + 1e-12
        assert found["value"] == pytest.approx(other[name]["value"])
        if found["ci95"] is not None:
            assert found["ci95"][0] <= found["ci95"][1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_ratio_is_the_mean(values):
    assert ratio(values) == pytest.approx(sum(values) / len(values))
    assert ratio(values, np.zeros(len(values))) is None
