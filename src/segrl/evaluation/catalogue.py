"""Every metric of the evaluation: its name, what it means in plain words, and how it is made from samples.

Each is `sum(numerators) / sum(denominators)` over samples, or the largest of several such ratios, so
one bootstrap over images serves them all. Definitions, with what a failure is worth: docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segrl.turns import MAX_TURNS

Columns = Mapping[str, np.ndarray]
"""Numbers of n samples by name, `(n,)` float64 each, NaN where a sample has none. `SCORED` names those that
every sample has."""

Ratios = Sequence[tuple[np.ndarray, np.ndarray]]

SCORED = (
    "iou",
    "s_measure",
    "intersection",
    "union",
    "target_area",
    "predicted_area",
    "failed",
    "said_none",
    "tokens",
    "seconds",
)
"""As `segrl.types.Score`; failed and said_none (the answer was NO_TARGET) are 0 or 1."""

MEASURED = (
    "pixels",
    "targets",
    "ref_id",
    "boundary_iou",
    "weighted_f",
    "box_iou",
    "named_iou",
    "beyond",
    "fractions",
    "objects",
    "found",
)
"""Numbers that `segrl.evaluation.measures` adds where they were asked for and apply."""

TURNS = ("turns", *(f"{name}_turn_{k}" for k in range(1, MAX_TURNS + 1) for name in ("iou", "tokens")))
"""Of conversations: how many turns there were; IoU after each, and tokens written by then. A conversation that was over
before has there what it had at its end."""

LENIENT = ("iou", "intersection", "union", "predicted_area", "failed")
"""Numbers of SCORED that the lenient reading has too, as `lenient_iou` and so on; NaN where nobody read so."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Metric:
    """One metric.

    name: its key in metrics.json. title: as the field writes it. meaning: one line in plain words.
    ratios: columns → numerators and denominators `(n,)`; the value is the largest ratio of sums. needs:
    columns without which it does not apply. lower_is_better: as for errors.
    """

    name: str
    title: str
    meaning: str
    ratios: Callable[[Columns], Ratios]
    needs: tuple[str, ...] = ()
    lower_is_better: bool = False


def _mean(of: Callable[[Columns], np.ndarray]) -> Callable[[Columns], Ratios]:
    """The mean over the samples that have the number."""

    def ratios(columns: Columns) -> Ratios:
        values = of(columns)
        known = ~np.isnan(values)
        return [(np.where(known, values, 0.0), known.astype(np.float64))]

    return ratios


def _share(of: Callable[[Columns], np.ndarray], among: Callable[[Columns], np.ndarray]) -> Callable[[Columns], Ratios]:
    """The share of samples where `of` holds, among those where `among` holds (bool `(n,)` each)."""

    def ratios(columns: Columns) -> Ratios:
        counted = among(columns)
        return [((of(columns) & counted).astype(np.float64), counted.astype(np.float64))]

    return ratios


def _has_target(c: Columns) -> np.ndarray:
    return c["target_area"] > 0


def _nothing_there(c: Columns) -> np.ndarray:
    return c["target_area"] == 0


def _recall(c: Columns) -> np.ndarray:
    return np.divide(c["intersection"], c["target_area"], out=np.full_like(c["iou"], np.nan), where=_has_target(c))


def _at(threshold: float) -> Callable[[Columns], Ratios]:
    return _mean(lambda c: (c["iou"] >= threshold).astype(np.float64))


def _by_rule(c: Columns, values: np.ndarray, worst: float = 0.0) -> np.ndarray:
    """A measure's values with the protocol laid over them: a failure gets `worst`, so does a mask where nothing is
    there, and NO_TARGET where nothing is there gets the opposite."""
    ruled = np.where(_nothing_there(c), np.where(c["said_none"] == 1, 1 - worst, worst), values)
    return np.where(c["failed"] == 1, worst, ruled)


def _e_measure(c: Columns, whole_image: bool = False) -> np.ndarray:
    from segrl.scoring import e_measure

    both, predicted = _whole(c) if whole_image else (c["intersection"], c["predicted_area"])
    return _by_rule(c, e_measure(both, predicted, c["target_area"], c["pixels"]))


def _f_measure(c: Columns, whole_image: bool = False) -> np.ndarray:
    from segrl.scoring import f_measure

    both, predicted = _whole(c) if whole_image else (c["intersection"], c["predicted_area"])
    return _by_rule(c, f_measure(both, predicted, c["target_area"]))


def _whole(c: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the prediction that takes the whole image."""
    return c["target_area"], c["pixels"]


Measure = Callable[[Columns, bool], np.ndarray]


def _over_levels(measure: Measure) -> Callable[[Columns], np.ndarray]:
    """The mean over PySODMetrics' 256 thresholds, the lowest of which takes the whole image."""
    return lambda c: (255 * measure(c, False) + measure(c, True)) / 256


def _adaptive(measure: Measure) -> Callable[[Columns], np.ndarray]:
    """At twice the mean of the mask: the mask itself, and the whole image where it is empty."""
    return lambda c: np.where(c["predicted_area"] > 0, measure(c, False), measure(c, True))


def _largest(measure: Measure) -> Callable[[Columns], Ratios]:
    """At the best threshold for all samples together."""
    return lambda c: [*_mean(lambda d: measure(d, False))(c), *_mean(lambda d: measure(d, True))(c)]


def _mae(c: Columns) -> np.ndarray:
    wrong = c["predicted_area"] + c["target_area"] - 2 * c["intersection"]
    return _by_rule(c, wrong / c["pixels"], worst=1.0)


def _ciou(c: Columns) -> Ratios:
    return [(c["intersection"], c["union"])]


def _of_turn(k: int) -> tuple[Metric, Metric]:
    overlap, tokens = f"iou_turn_{k}", f"tokens_turn_{k}"
    meanings = (f"overlap after at most {k} turns", f"tokens written in at most {k} turns")
    return (
        Metric(f"giou_turn_{k}", f"gIoU, turn {k}", meanings[0], _mean(lambda c: c[overlap]), (overlap,)),
        Metric(tokens, f"tokens, turn {k}", meanings[1], _mean(lambda c: c[tokens]), (tokens,), lower_is_better=True),
    )


def _known(values: np.ndarray) -> np.ndarray:
    """0 where a sample has no number: records of before it was measured."""
    return np.nan_to_num(values)


SALIENCY = ("pixels", "weighted_f")
"""Columns that say that the measures of camouflage and saliency were asked for."""

CATALOGUE: tuple[Metric, ...] = (
    Metric("giou", "gIoU", "mean overlap with the true mask", _mean(lambda c: c["iou"])),
    Metric("ciou", "cIoU", "overlap of all pixels together: large objects weigh more", _ciou),
    *(Metric(f"pr@{k}", f"Pr@{k}", f"answers with IoU of {k} or more", _at(k)) for k in THRESHOLDS),
    Metric("mask_recall", "mask recall", "share of the true mask that was found", _mean(_recall)),
    Metric("boundary_iou", "boundary IoU", "overlap of the outlines",
           _mean(lambda c: _by_rule(c, c["boundary_iou"])), ("boundary_iou",)),
    Metric("s_measure", "S-measure", "likeness of structure", _mean(lambda c: c["s_measure"])),
    Metric("e_mean", "E-measure, mean", "likeness of pixels and image", _mean(_over_levels(_e_measure)), SALIENCY),
    Metric("e_adaptive", "E-measure, adaptive", "at twice the mean", _mean(_adaptive(_e_measure)), SALIENCY),
    Metric("e_max", "E-measure, max", "at the best threshold", _largest(_e_measure), SALIENCY),
    Metric("weighted_f", "weighted F", "precision and recall, errors far away weigh more",
           _mean(lambda c: _by_rule(c, c["weighted_f"])), SALIENCY),
    Metric("f_mean", "F-measure, mean", "precision and recall (β² = 0.3)", _mean(_over_levels(_f_measure)), SALIENCY),
    Metric("f_adaptive", "F-measure, adaptive", "at twice the mean", _mean(_adaptive(_f_measure)), SALIENCY),
    Metric("f_max", "F-measure, max", "at the best threshold", _largest(_f_measure), SALIENCY),
    Metric("mae", "MAE", "share of wrong pixels", _mean(_mae), SALIENCY, lower_is_better=True),
    Metric("instances_found", "instances found", "targets with a mask of their own (IoU of 0.5 or more)",
           lambda c: [(_known(c["found"]), np.where(np.isnan(c["found"]), 0.0, c["targets"]))], ("found",)),
    Metric("instances_right", "instances right", "masks that are of a target, one to one",
           lambda c: [(_known(c["found"]), _known(c["objects"]))], ("found",)),
    Metric("n_acc", "N-acc", "of requests for nothing, those answered so",
           _share(lambda c: c["said_none"] == 1, _nothing_there)),
    Metric("t_acc", "T-acc", "of requests for something, those answered with a mask",
           _share(lambda c: (c["said_none"] == 0) & (c["failed"] == 0), _has_target)),
    Metric("box_acc", "box accuracy", "answers whose box has IoU above 0.5",
           _mean(lambda c: np.where(np.isnan(c["box_iou"]), np.nan, c["box_iou"] > 0.5)), ("box_iou",)),
    Metric("faithful", "faithful", "answers whose mask is of what their reasoning names (IoU of 0.5 or more)",
           _mean(lambda c: np.where(np.isnan(c["named_iou"]), np.nan, c["named_iou"] >= 0.5)), ("named_iou",)),
    Metric("parse_rate", "answers read", "answers in the agreed form", _mean(lambda c: 1 - c["failed"])),
    Metric("tokens", "tokens", "mean length of an answer", _mean(lambda c: c["tokens"]), lower_is_better=True),
    Metric("turns", "turns", "mean number of turns", _mean(lambda c: c["turns"]), ("turns",), lower_is_better=True),
    *(metric for k in range(1, MAX_TURNS + 1) for metric in _of_turn(k)),
)  # fmt: skip
"""In the order in which tables show them."""


def applicable(columns: Columns) -> list[Metric]:
    """The metrics that these samples can give: those whose columns are known for at least one sample."""
    return [m for m in CATALOGUE if all(name in columns and not np.isnan(columns[name]).all() for name in m.needs)]
