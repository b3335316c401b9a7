"""Run directory → report.html and summary.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segrl.evaluation import EvalDir, compare_runs, pointing
from segrl.evaluation.general import read_general
from segrl.evaluation.overlap import words
from segrl.evaluation.result import metrics_of
from segrl.files import write_atomically
from segrl.reporting import pages
from segrl.reporting.charts import training_charts
from segrl.reporting.evaluated_run import EvaluatedRun, Group, choose, require_run
from segrl.reporting.evaluation import write_page
from segrl.reporting.pictures import kept_pictures
from segrl.reporting.rollouts import viewer
from segrl.training.diagnosis import facts, history


def write_report(path: Path | str) -> Path:
    """Write report.html for what `path` holds, and summary.json for a training run; returns the page's path.

    `path`: a training run, also one that is still going, an evaluation, or scores of general ability. Whatever a run
    lacks (no evaluation, no training log) is left out of the page. Raises DataError if `path` holds none of them, or
    a file of it cannot be read.
    """
    if EvalDir(Path(path)).is_finished or read_general(Path(path)) is not None:
        return write_page(path)
    run = require_run(Path(path))
    summary = summary_of(run)
    write_atomically(run.summary_path, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_atomically(run.report_path, _render(run, summary))
    return run.report_path


def summary_of(run: EvaluatedRun) -> dict[str, Any]:
    """The numbers of a run as JSON holds them.

    `overlap`: whether the measured examples were trained on; `before`, `after`: metrics.json of either; `comparison`:
    `segrl.evaluation.compare_runs` of the two; `pointing` before and after; `steps`; `seconds`, and `seconds_of` each
    stage; `diagnosis`: findings with the steps between which they held (`segrl.training.diagnosis`). What was not
    measured is not there.
    """
    numbers: dict[str, Any] = {}
    for name, directory in (("before", run.before_dir), ("after", run.after_dir)):
        if directory.is_finished:
            numbers[name] = metrics_of(directory)
    if run.before and run.after:
        numbers["comparison"] = compare_runs(run.before_dir.path, run.after_dir.path)
        numbers["pointing"] = {"before": pointing(run.before), "after": pointing(run.after)}
    if run.overlap is not None:
        numbers["overlap"] = asdict(run.overlap) | {"held_out": run.overlap.is_held_out}
    numbers["steps"] = int(run.steps[-1]["step"]) if run.steps else 0
    numbers["diagnosis"] = [
        {**asdict(spell.finding), "first": spell.first, "last": spell.last}
        for spell in history(run.steps, [facts(row) for row in run.rollouts])
    ]
    return numbers | {"seconds": round(sum(run.seconds.values()), 3), "seconds_of": run.seconds}


def chosen(run: EvaluatedRun) -> list[Group]:
    """The examples that the page shows; empty unless the run was measured before and after."""
    return choose(run.before, run.after) if run.before and run.after else []


def _render(run: EvaluatedRun, summary: dict[str, Any]) -> str:
    groups = chosen(run)
    template = pages.environment().get_template("run.html.jinja")
    return template.render(
        title=f"{run.path.resolve().name}: what the policy learned",
        under=" · ".join([run.path.resolve().name, *pages.facts(run.recipe, summary)]),
        about=run.recipe.get("about") or "",
        introduction=pages.introduction(run.recipe, summary, run.overlap),
        overlap=run.overlap,
        words=words,
        summary=summary,
        shown=_without_slices(summary),
        axis=_axis(summary),
        charts=training_charts(run.steps, _held_out(run, summary), words(run.overlap, "queries")),
        groups=groups,
        pictures=kept_pictures((pair.before for group in groups for pair in group.pairs), run.pictures),
        recipe=run.recipe_text,
        judged=any("reward" in row for row in run.steps),
        check=run.reward_check,
        rollouts=viewer(run.rollouts, run.rollout_pictures),
        script=pages.page_file("rollouts.js"),
        style=pages.page_file("style.css") + pages.page_file("rollouts.css"),
    )


def _without_slices(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without the parts of before, after and comparison, which are most of it."""
    return {
        name: {key: one for key, one in value.items() if key != "slices"} if isinstance(value, dict) else value
        for name, value in summary.items()
    }


def _held_out(run: EvaluatedRun, summary: dict[str, Any]) -> list[tuple[float, float]]:
    """`(step, gIoU)` of every evaluation: before, during and after training."""
    during = {row["step"]: row["held_out/giou"] for row in run.steps if row.get("held_out/giou") is not None}
    measured = ((0, summary.get("before")), (summary["steps"], summary.get("after")))
    giou = {step: part["metrics"]["giou"]["value"] for step, part in measured if part}
    ends = {step: value for step, value in giou.items() if value is not None}
    return sorted((during | ends).items())


def _axis(summary: dict[str, Any]) -> tuple[float, float]:
    """Ends of the axis on which gains are drawn: it holds every interval, zero, and at least 0.1."""
    found = summary.get("comparison")
    rows = [] if found is None else [found, *found["slices"].get("kind", {}).values()]
    ends = [end for row in rows for end in row["metrics"]["giou"]["ci95"] or ()]
    return min([0.0, *ends]), max([0.1, *ends])
