"""The measures of the saliency field against PySODMetrics, over masks of every kind."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tries import tries

from segrl.evaluation.bootstrap import measure
from segrl.evaluation.catalogue import CATALOGUE, MEASURED, SCORED
from segrl.scoring import weighted_f
from segrl.types import Status

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12)
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))


def reference(samples: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """What PySODMetrics says of (mask, truth) pairs, fed as the 0–255 images it expects."""
    import py_sod_metrics as sod

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e, f, mae, weighted = sod.Emeasure(), sod.Fmeasure(), sod.MAE(), sod.WeightedFmeasure()
    for pred, gt in samples:
        for one in (e, f, mae, weighted):
            one.step(pred.astype(np.uint8) * 255, gt.astype(np.uint8) * 255)
    em, fm = e.get_results()["em"], f.get_results()["fm"]
    return {
        "e_mean": em["curve"].mean(),
        "e_max": em["curve"].max(),
        "e_adaptive": em["adp"],
        "f_mean": fm["curve"].mean(),
        "f_max": fm["curve"].max(),
        "f_adaptive": fm["adp"],
        "mae": mae.get_results()["mae"],
        "weighted_f": weighted.get_results()["wfm"],
    }


def columns_of(samples: list[tuple[np.ndarray, np.ndarray]], status: Status = Status.OK) -> dict[str, np.ndarray]:
    """The counts that scoring would give of (mask, truth) pairs."""
    rows = []
    for pred, gt in samples:
        both, either = int((pred & gt).sum()), int((pred | gt).sum())
        rows.append(
            dict.fromkeys((*SCORED, *MEASURED), np.nan)
            | {"iou": both / either if either else 1.0, "s_measure": 0.0, "intersection": both, "union": either}
            | {"target_area": gt.sum(), "predicted_area": pred.sum(), "failed": status.is_failure}
            | {"said_none": status is Status.NO_TARGET, "tokens": 0, "seconds": 0.0}
            | {"pixels": gt.size, "targets": 1, "weighted_f": weighted_f(pred, gt)}
        )
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def ours(samples: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    metrics = [metric for metric in CATALOGUE if "weighted_f" in metric.needs]
    return {name: found["value"] for name, found in measure(columns_of(samples), ["a"], metrics).items()}


@tries(150)
@given(pair=pairs)
@example(pair=(np.zeros((4, 5), bool), np.eye(4, 5, dtype=bool)))
@example(pair=(np.ones((4, 5), bool), np.eye(4, 5, dtype=bool)))
@example(pair=(np.eye(4, 5, dtype=bool), np.ones((4, 5), bool)))
@example(pair=(np.zeros((4, 5), bool), np.ones((4, 5), bool)))
def test_one_sample_equals_pysodmetrics(pair):
    if pair[1].any():  # where nothing is there the protocol is ours
        assert ours([pair]) == pytest.approx(reference([pair]), abs=1e-6)


def test_many_samples_equal_pysodmetrics():
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(12):
        ys, xs = np.mgrid[:48, :64]
        gt = np.hypot(ys - rng.integers(10, 38), xs - rng.integers(10, 54)) < rng.integers(4, 16)
        samples.append((np.roll(gt, rng.integers(-9, 9, size=2), axis=(0, 1)), gt))
    samples.append((np.zeros_like(samples[0][1]), samples[0][1]))
    assert ours(samples) == pytest.approx(reference(samples), abs=1e-6)


@pytest.mark.parametrize(
    ("status", "is_there", "best"),
    [(Status.BAD_SYNTAX, True, 0), (Status.BAD_SYNTAX, False, 0), (Status.OK, False, 0), (Status.NO_TARGET, False, 1)],
)
def test_the_protocol_decides_where_pixels_cannot(status, is_there, best):
    gt = np.full((6, 6), is_there)
    columns = columns_of([(np.zeros((6, 6), bool), gt)], status)
    found = measure(columns, ["a"], [m for m in CATALOGUE if "weighted_f" in m.needs])
    assert found.pop("mae")["value"] == 1 - best
    assert {one["value"] for one in found.values()} == {best}
