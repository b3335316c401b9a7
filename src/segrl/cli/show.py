"""What a person sees of a run: live progress, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from segrl.evaluation import EvalRecord, OnProgress
from segrl.experiment import improve
from segrl.jobs.progress import NowAndThen
from segrl.log_filters import quieten
from segrl.report.story import interval, signed, verdict
from segrl.training import Recipe

_STYLES = {"better": "green", "worse": "red", "unclear": "dim"}


def run_and_show(recipe: Recipe, out: Path, processes: int = 1) -> Path:
    """Run a recipe in `out` with live progress; ends with the table before/after and the report's path.

    Returns the directory of the trained policy.
    """
    quieten()
    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    done = improve(
        recipe, out, processes=processes, say=say, watch=lambda stage: _watch(console, f"measuring {stage} training")
    )
    if "gains" in done.summary:
        console.print(before_after_table(done.summary))
    say(f"policy  {done.model_dir}")
    say(f"report  {done.report_path}")
    return done.model_dir


def _watch(console: Console, name: str) -> OnProgress:
    """Shows how far an evaluation is: one line that changes on a terminal, a line now and then elsewhere."""
    begun, now_and_then = time.monotonic(), NowAndThen()

    def watch(records: Sequence[EvalRecord], total: int) -> None:
        now, done = time.monotonic(), len(records)
        finished = done == total
        giou = sum(record.iou for record in records) / done
        left = f", {(now - begun) / done * (total - done):.0f} s left" if not finished else f" in {now - begun:.0f} s"
        line = f"{name}: {done}/{total}, gIoU {giou:.3f}{left}"
        if console.is_terminal:
            console.print(f"{line:<79}", end="\n" if finished else "\r", highlight=False)
        elif now_and_then.is_due(is_last=finished):
            console.print(line, highlight=False, soft_wrap=True)

    return watch


def before_after_table(summary: dict[str, Any]) -> Table:
    """gIoU by kind of query before and after, the change with its interval, and the share of answers read."""
    before, after, gains = summary["before"], summary["after"], summary["gains"]
    table = Table(title=f"gIoU on held-out examples, {summary['steps']} steps, {summary['seconds']:.0f} s")
    table.add_column("kind", no_wrap=True)
    for column in ("n", "before", "after", "change (95% interval)", "answers read"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(*_row("all", before, after, gains), end_section=True)
    for kind, gain in gains["by_kind"].items():
        table.add_row(*_row(kind.replace("_", " "), before["by_kind"][kind], after["by_kind"][kind], gain))
    return table


def _row(name: str, before: dict[str, Any], after: dict[str, Any], gain: dict[str, Any]) -> list[str]:
    style = _STYLES[verdict(gain["giou_gain_ci95"])]
    return [
        name,
        str(gain["n"]),
        _number(before["giou"]),
        _number(after["giou"]),
        f"[{style}]{signed(gain['giou_gain'])}[/] ({interval(gain['giou_gain_ci95'])})",
        f"{before['parse_rate']:.0%} → {after['parse_rate']:.0%}",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
