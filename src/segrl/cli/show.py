"""What a person sees of a run: live progress, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from segrl.cli.evaluation_tables import change_table
from segrl.evaluation import EvalRecord, OnWindow, Overlap
from segrl.evaluation.overlap import words
from segrl.experiment import improve
from segrl.jobs.progress import NowAndThen
from segrl.log_filters import quieten
from segrl.training import Recipe


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
    if "comparison" in done.summary:
        console.print(before_after_table(done.summary, done.overlap))
    if done.overlap is not None and done.overlap.warning:
        console.print(f"WARNING: {done.overlap.warning}", style="bold red", highlight=False, soft_wrap=True)
    say(f"policy  {done.model_dir}")
    say(f"report  {done.report_path}")
    return done.model_dir


def _watch(console: Console, name: str) -> OnWindow:
    """Shows how far an evaluation is: one line that changes on a terminal, a line now and then elsewhere."""
    begun, now_and_then = time.monotonic(), NowAndThen()
    done, overlap = 0, 0.0

    def watch(records: Sequence[EvalRecord], finished: int, total: int) -> None:
        nonlocal done, overlap
        now = time.monotonic()
        done, overlap = done + len(records), overlap + sum(record.iou for record in records)
        is_last = finished == total
        left = f" in {now - begun:.0f} s" if is_last else f", {(now - begun) / done * (total - finished):.0f} s left"
        line = f"{name}: {finished}/{total}, gIoU {overlap / done:.3f}{left}"
        if console.is_terminal:
            console.print(f"{line:<79}", end="\n" if is_last else "\r", highlight=False)
        elif now_and_then.is_due(is_last=is_last):
            console.print(line, highlight=False, soft_wrap=True)

    return watch


def before_after_table(summary: Mapping[str, Any], overlap: Overlap | None = None) -> Table:
    """gIoU by kind of query before and after training, as `segrl compare` shows it."""
    title = f"gIoU on {words(overlap)}, {summary['steps']} steps, {summary['seconds']:.0f} s"
    return change_table(summary["comparison"], title, ("before", "after"), ["kind"])
