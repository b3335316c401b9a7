"""Charts of a training log, whatever series it holds, as inline SVG: thin raw line, bold running mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from markupsafe import Markup

from segrl.types import Status

WIDTH, HEIGHT = 380, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26


@dataclass(frozen=True)
class Series:
    """One line: its name, its points `(step, value)` in order of steps, and a colour class of the style sheet."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str = "c1"
    dots_only: bool = False

    @property
    def last(self) -> str:
        """The last smoothed value as text."""
        return show(smooth(self.points)[-1][1]) if self.points else ""


@dataclass(frozen=True)
class Chart:
    """Lines over the same steps. note: one line that says what to look for. floor: a value the axis must show."""

    title: str
    note: str
    series: tuple[Series, ...]
    floor: float | None = None
    ceiling: float | None = None

    @property
    def svg(self) -> Markup:
        """The drawing; axes and lines only, the page writes title and legend."""
        return Markup(_draw(self))


def show(value: float) -> str:
    """A number with three significant digits, without an exponent where that can be read."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centred running mean over a twentieth of the run; the raw points of a run under 20 steps."""
    reach = len(points) // 40
    means = []
    for i, (x, _) in enumerate(points):
        near = points[max(0, i - reach) : i + reach + 1]
        means.append((x, sum(y for _, y in near) / len(near)))
    return means


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten apart) that span [low, high]."""
    span = max(high - low, 1e-9, abs(high) * 1e-6)
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _draw(chart: Chart) -> str:
    points = [point for series in chart.series for point in series.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ticks = nice_ticks(min([*ys, *_given(chart.floor)]), max([*ys, *_given(chart.ceiling)]))
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    scale = _Scale(x0, x1, ticks[0], ticks[-1])
    body = [_y_axis(ticks, scale), _x_axis(sorted({x0, round((x0 + x1) / 2), x1}), scale)]
    body += [_line(series, scale) for series in chart.series]
    label = escape(chart.title, {'"': "&quot;"})
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="chart" role="img" aria-label="{label}">{"".join(body)}</svg>'


def _given(value: float | None) -> list[float]:
    return [] if value is None else [value]


@dataclass(frozen=True)
class _Scale:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def _y_axis(ticks: Sequence[float], scale: _Scale) -> str:
    rows = []
    for tick in ticks:
        y = scale.y(tick)
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return "".join(rows)


def _x_axis(ticks: Sequence[float], scale: _Scale) -> str:
    anchors = ["start", "middle", "end"] if len(ticks) == 3 else ["start", "end"]
    rows = []
    for tick, anchor in zip(ticks, anchors, strict=False):
        name = f"step {tick:g}" if anchor == "start" else f"{tick:g}"
        x = scale.x(tick) if anchor != "start" else LEFT
        rows.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{name}</text>')
    return "".join(rows)


def _line(series: Series, scale: _Scale) -> str:
    name = escape(series.name)
    if series.dots_only or len(series.points) == 1:
        dots = (
            f'<circle class="dot {series.colour}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="4.5">'
            f"<title>{name}, step {x:g}: {show(y)}</title></circle>"
            for x, y in series.points
        )
        return "".join(dots)
    raw = f'<polyline class="raw {series.colour}" points="{scale.path(series.points)}"/>'
    bold = f'<polyline class="line {series.colour}" points="{scale.path(smooth(series.points))}"/>'
    return f"<g><title>{name}</title>{raw if len(series.points) >= 40 else ''}{bold}</g>"


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
    ("kl", "KL", "KL divergence from the policy at the start of training (k3 estimate, nats per token)."),
    ("entropy", "Entropy", "Mean entropy of the next-token distribution (nats); near 0 the policy no longer explores."),
    ("loss", "Loss", "The training objective."),
    ("mean_token_accuracy", "Token accuracy", "Share of gold tokens that are the policy's most likely ones."),
    ("grad_norm", "Gradient norm", "Before clipping."),
    ("learning_rate", "Learning rate", "Learning rate after warm-up and schedule."),
)


def training_charts(
    steps: Sequence[Row], measured: Sequence[tuple[float, float]] = (), asked: str = "queries"
) -> list[Chart]:
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
    note = "Mean weighted reward of the sampled answers, and its standard deviation: at 0 there is no gradient."
    return Chart("Reward", note, _present(series), floor=0.0)


def _terms(steps: Sequence[Row]) -> Chart:
    names = _names(steps, lambda key: key.startswith("rewards/") and key.endswith("/mean"))
    series = [_series(steps, key, key.split("/")[1], COLOURS[i % len(COLOURS)]) for i, key in enumerate(names)]
    note = "Each term before its weight, mean over the sampled answers."
    return Chart("Reward terms", note, _present(series), floor=0.0)


def _giou(steps: Sequence[Row], measured: Sequence[tuple[float, float]], asked: str) -> Chart:
    sampled = _series(steps, "giou", "sampled answers, training queries", "c1")
    evaluated = Series(f"greedy answers, {asked}", tuple(measured), "c2", dots_only=True)
    note = "Mean IoU with the true masks. Sampled answers explore; greedy ones are the most likely ones."
    return Chart("gIoU", note, _present([sampled, evaluated]), floor=0.0)


def _statuses(steps: Sequence[Row]) -> Chart:
    series = [_series(steps, f"status/{s.value}", s.value.replace("_", " "), STATUS_COLOURS[s]) for s in Status]
    present = tuple(line for line in _present(series) if any(value > 0 for _, value in line.points))
    return Chart("Answer status", "Share of sampled answers by status.", present, floor=0.0, ceiling=1.0)


def _groups(steps: Sequence[Row]) -> Chart:
    lines = (
        ("frac_reward_zero_std", "groups of equal rewards", "c1"),
        ("completions/clipped_ratio", "answers cut off", "c5"),
        ("clip_ratio/region_mean", "clipped tokens", "c2"),
    )
    series = [_series(steps, key, name, colour) for key, name, colour in lines]
    note = "Shares of groups, answers and tokens that contribute no gradient."
    return Chart("No gradient", note, _present(series), floor=0.0)


def _phases(steps: Sequence[Row]) -> Chart:
    names = ("rollout", "reward", "update", "evaluation")
    series = [_series(steps, f"seconds/{name}", name, COLOURS[i]) for i, name in enumerate(names)]
    return Chart("Seconds", "Wall time between two logs, by phase.", _present(series), floor=0.0)


def _names(steps: Sequence[Row], wanted: Callable[[str], bool]) -> list[str]:
    """The wanted keys in order of first appearance."""
    return list(dict.fromkeys(key for row in steps for key in row if wanted(key)))


def _series(steps: Sequence[Row], key: str, name: str, colour: str) -> Series:
    points = ((float(row["step"]), float(row[key])) for row in steps if isinstance(row.get(key), int | float))
    return Series(name, tuple(point for point in points if point[1] == point[1]), colour)


def _present(series: Sequence[Series]) -> tuple[Series, ...]:
    return tuple(line for line in series if line.points)
