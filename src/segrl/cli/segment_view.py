"""What a person sees of `segrl segment`: what begins, how far it is, what was found, where it lies, what failed.

Progress, notes and problems go to standard error, the summary to standard output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from segrl.files import legible
from segrl.folder_job import Inputs, Summary, Tally
from segrl.log_filters import quieten

EVERY_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""

MOST_PROBLEMS = MOST_QUERIES = 20
"""Problems and queries that are listed; of the rest the number is told."""

WHAT_IT_IS = {
    "coco": "boxes and polygons of all images in one file",
    "yolo": "polygons, a file for each image, and data.yaml",
    "rle": "run lengths, a line for each answer that could be read",
    "png": "masks, a picture for each image and query",
    "labelme": "polygons to correct in LabelMe, a file for each image",
    "overlay": "what was found, drawn over the pictures",
}


def duration(seconds: float) -> str:
    """In words, rounded as an estimate is.

    >>> [duration(s) for s in (0.4, 42, 150, 8000)]
    ['1 s', '42 s', '2.5 min', '2 h 13 min']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "image"), counted(2, "query")
    ('1 image', '2 queries')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


class Estimate:
    """How long the rest takes, by the pace since the first images: they came with the loading of the model.

    now: seconds of any steady clock.
    """

    def __init__(self, now: float) -> None:
        self._first, self._last = (0, now), (0, now)
        self._total = 0

    def update(self, done: int, total: int, now: float) -> None:
        """`done` of `total` images are through."""
        if not self._first[0]:
            self._begun, self._first = self._first[1], (done, now)
        self._last, self._total = (done, now), total

    def left(self, now: float) -> float | None:
        """Seconds; None before there was a first image."""
        (first, since), (done, seen) = self._first, self._last
        if not done:
            return None
        pace = (seen - since) / (done - first) if done > first else (seen - self._begun) / done
        return max(0.0, pace * (self._total - done) - (now - seen))


class _TimeLeft(ProgressColumn):
    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"in {duration(task.finished_time or 0)}")
        left = self._estimate.left(time.monotonic())
        return Text("loading the model" if left is None else f"about {duration(left)} left")


class View:
    """Everything that is printed; a context manager around the work, so that the bar ends with it."""

    def __init__(self, out: Path) -> None:
        self._out, self._notes, self._console = out, Console(stderr=True, highlight=False), Console(highlight=False)
        self._estimate = Estimate(time.monotonic())
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images,"),
            _TimeLeft(self._estimate),
            console=self._notes,
        )
        self._task = self._bar.add_task("", total=None, visible=False)
        self._begun = self._printed = time.monotonic()

    def announce(self, inputs: Inputs, model: Mapping[str, Any]) -> None:
        """What is about to be done, and what a newcomer must know before reading the result."""
        queries = {query for job in inputs.jobs for query in job.queries}
        self._bar.update(self._task, total=len(inputs.jobs))
        counts = f"[bold]{counted(len(inputs.jobs), 'image')}, {counted(len(queries), 'query')}[/]"
        self._say(f"{counts} · policy {escape(model['policy'])}, segmenter {escape(model['segmenter'])}")
        if inputs.passed_over:
            files = ", ".join(f"{n} {suffix}" for suffix, n in sorted(inputs.passed_over.items()))
            self._say(f"[yellow]passed over, not read as images:[/] {escape(files)}")
        if model["policy"] == "tiny":
            self._say(
                "[yellow]tiny is a toy that knows drawn coloured shapes; for photographs name a real model:[/]\n"
                "  --policy geshang/Seg-R1-7B (needs a GPU with 24 GB; downloaded when it is first used)"
            )

    def on_image(self, done: int, total: int) -> None:
        """See `photos.run.OnImage`."""
        now = time.monotonic()
        self._estimate.update(done, total, now)
        if self._notes.is_terminal:
            self._bar.update(self._task, completed=done, total=total, visible=True)
            return
        if done == total or now - self._printed >= EVERY_SECONDS:
            self._printed = now
            spent, left = now - self._begun, self._estimate.left(now) or 0.0
            when = f"in {duration(spent)}" if done == total else f"about {duration(left)} left"
            self._say(f"{done}/{total} images, {when}")

    def __enter__(self) -> View:
        quieten()
        self._begun = self._printed = time.monotonic()
        if self._notes.is_terminal:
            self._bar.update(self._task, visible=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._notes.is_terminal:
            self._bar.update(self._task, visible=bool(self._bar.tasks[0].completed))
            self._bar.stop()

    def show(self, summary: Summary) -> None:
        """A row for each query, then where the files are, then what could not be used."""
        if summary.tallies:
            self._console.print(_table(summary), "")
        self._console.print("\n".join(_files(summary)), soft_wrap=True)
        for line in _problems(summary.broken):
            self._say(line)

    def _say(self, line: str) -> None:
        self._notes.print(line, soft_wrap=True)


def _table(summary: Summary) -> Table:
    """Counts by query, over all runs of this folder; the queries with the most images where there are many."""
    before = f", {counted(summary.skipped, 'image')} done before" if summary.skipped else ""
    table = Table(title=f"{counted(summary.new, 'image')} done now{before}", title_justify="left")
    table.add_column("query", overflow="fold")
    for column in ("asked", "found in", "objects", "nothing there", "answer unreadable"):
        table.add_column(column, justify="right")
    most = sorted(summary.tallies.items(), key=lambda item: -item[1].images)[:MOST_QUERIES]
    for query, tally in most:
        table.add_row(escape(query), *_counts([tally]))
    if len(summary.tallies) > 1:
        table.add_section()
        table.add_row(f"all {len(summary.tallies)}", *_counts(summary.tallies.values()))
    return table


def _counts(tallies: Iterable[Tally]) -> list[str]:
    rows = [(one.images, one.found, one.objects, one.nothing, one.unread) for one in tallies]
    return [str(count) if count else "[dim]0[/]" for count in map(sum, zip(*rows, strict=True))]


def _files(summary: Summary) -> Iterator[str]:
    width = max((len(_shown(path)) for path in summary.files.values()), default=0)
    for name, path in summary.files.items():
        shown = _shown(path)
        yield f"[bold]{escape(shown)}[/]{' ' * (width - len(shown))}  {WHAT_IT_IS[name]}"


def _shown(path: Path) -> str:
    """A path as a person would type it; a folder ends in a slash."""
    return legible(f"{path}{os.sep}" if path.is_dir() else str(path))


def _problems(broken: list[str]) -> Iterator[str]:
    if not broken:
        return
    yield f"\n[red]{counted(len(broken), 'image')} could not be used, and nothing was written for them:[/]"
    for problem in broken[:MOST_PROBLEMS]:
        yield f"  {escape(' '.join(problem.split()))}"
    if len(broken) > MOST_PROBLEMS:
        yield f"  and {len(broken) - MOST_PROBLEMS} more"
