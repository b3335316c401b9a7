"""Which charts a training log gives: whatever series it holds, in a fixed order; missing ones are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from segrl.reporting.charts import Chart, Series
from segrl.types import Status

COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6")
Row = dict[str, Any]

STATUS_COLOURS = {
    Status.OK: "c3",
    Status.NO_TARGET: "c6",
    Status.TRUNCATED: "c5",
    Status.NO_ANSWER: "c4",
    Status.BAD_SYNTAX: "c2",
    Status.BAD_VALUES: "c1",
}

_SIMPLE = (
    ("completions/mean_length", "Length", "Mean tokens per answer."),
    ("kl", "KL", "Distance from the policy that training began with (k3 estimate, nats per token)."),
    ("entropy", "Entropy", "How undecided the policy is at each token (nats); near 0 it no longer explores."),
    ("loss", "Loss", "What the optimizer descends."),
    ("mean_token_accuracy", "Token accuracy", "Share of gold tokens that the policy puts first."),
    ("grad_norm", "Gradient norm", "Before clipping."),
    ("learning_rate", "Learning rate", "The schedule."),
)


def charts(steps: Sequence[Row], measured: Sequence[tuple[float, float]] = (), asked: str = "queries") -> list[Chart]:
    """Charts of a training log. measured: `(step, gIoU)` of evaluations beside it, drawn as dots; asked: of what."""
    drawn = [
        _reward(steps),
        _terms(steps),
        _giou(steps, measured, asked),
        _statuses(steps),
        _groups(steps),
        _phases(steps),
        *(Chart(title, note, _present([_series(steps, key, title, "c1")])) for key, title, note in _SIMPLE),
    ]
    return [chart for chart in drawn if chart.series]


def _reward(steps: Sequence[Row]) -> Chart:
    series = [_series(steps, "reward", "reward", "c1"), _series(steps, "reward_std", "deviation", "c2")]
    note = "Mean weighted reward of the sampled answers, and its deviation: without one there is nothing to learn from."
    return Chart("Reward", note, _present(series), floor=0.0)


def _terms(steps: Sequence[Row]) -> Chart:
    names = _names(steps, lambda key: key.startswith("rewards/") and key.endswith("/mean"))
    series = [_series(steps, key, key.split("/")[1], COLOURS[i % len(COLOURS)]) for i, key in enumerate(names)]
    note = "Each term before its weight, mean over the sampled answers."
    return Chart("Reward terms", note, _present(series), floor=0.0)


def _giou(steps: Sequence[Row], measured: Sequence[tuple[float, float]], asked: str) -> Chart:
    sampled = _series(steps, "giou", "sampled answers, training queries", "c1")
    evaluated = Series(f"greedy answers, {asked}", tuple(measured), "c2", dots_only=True)
    note = "Mean IoU with the true masks. Sampled answers explore; greedy ones are what the policy thinks best."
    return Chart("gIoU", note, _present([sampled, evaluated]), floor=0.0)


def _statuses(steps: Sequence[Row]) -> Chart:
    series = [_series(steps, f"status/{s.value}", s.value.replace("_", " "), STATUS_COLOURS[s]) for s in Status]
    present = tuple(line for line in _present(series) if any(value > 0 for _, value in line.points))
    return Chart(
        "Answer status", "Share of sampled answers by how they could be read.", present, floor=0.0, ceiling=1.0
    )


def _groups(steps: Sequence[Row]) -> Chart:
    lines = (
        ("frac_reward_zero_std", "groups of equal rewards", "c1"),
        ("completions/clipped_ratio", "answers cut off", "c5"),
        ("clip_ratio/region_mean", "clipped tokens", "c2"),
    )
    series = [_series(steps, key, name, colour) for key, name, colour in lines]
    return Chart("Wasted", "What teaches nothing, as shares.", _present(series), floor=0.0)


def _phases(steps: Sequence[Row]) -> Chart:
    names = ("rollout", "reward", "update", "evaluation")
    series = [_series(steps, f"seconds/{name}", name, COLOURS[i]) for i, name in enumerate(names)]
    return Chart("Seconds", "Wall time between two logs, by what was done.", _present(series), floor=0.0)


def _names(steps: Sequence[Row], wanted: Callable[[str], bool]) -> list[str]:
    """The wanted keys in order of first appearance."""
    return list(dict.fromkeys(key for row in steps for key in row if wanted(key)))


def _series(steps: Sequence[Row], key: str, name: str, colour: str) -> Series:
    points = ((float(row["step"]), float(row[key])) for row in steps if isinstance(row.get(key), int | float))
    return Series(name, tuple(point for point in points if point[1] == point[1]), colour)


def _present(series: Sequence[Series]) -> tuple[Series, ...]:
    return tuple(line for line in series if line.points)
