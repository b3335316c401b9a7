"""What `segrl segment` prints: what it starts with, progress, what was found, the files, what failed.

Progress, notes and problems go to standard error, the summary to standard output.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segrl.errors import quieten
from segrl.files import legible
from segrl.folder_job import Inputs, Summary, Tally
from segrl.jobs.progress import Progress, counted

MOST_PROBLEMS = MOST_QUERIES = 20
"""Problems and queries that are listed; of the rest the number is told."""

WHAT_IT_IS = {
    "coco": "boxes and polygons of all images in one file",
    "yolo": "polygons and images for Ultralytics, with data.yaml",
    "rle": "COCO run-length masks, one line per parsed answer",
    "png": "masks, one PNG per image and query",
    "labelme": "polygons to correct in LabelMe, one file per image",
    "label-studio": "tasks with polygons to correct in Label Studio, and the labelling interface",
    "cutout": "what was found, on a transparent background",
    "overlay": "what was found, drawn over the images",
    "shards": "parquet files, one row per image and query, masks as COCO run lengths",
    "review": "the images of lowest confidence, to correct in Label Studio or LabelMe",
}


class View:
    """Everything that is printed; a context manager around the work, so that the bar ends with it."""

    def __init__(self, out: Path, noun: str = "images") -> None:
        self._out, self._console = out, Console(highlight=False)
        self._progress = Progress(noun)

    def announce(self, inputs: Inputs, model: Mapping[str, Any]) -> None:
        """What is about to be done, and what a newcomer must know before reading the result."""
        queries = {query for job in inputs.jobs for query in job.queries}
        counts = f"[bold]{counted(len(inputs.jobs), 'image')}, {counted(len(queries), 'query')}[/]"
        policy = f"policy {escape(model['policy'])}" if "policy" in model else "boxes and points from a file"
        self._say(f"{counts} · {policy}, segmenter {escape(model['segmenter'])}")
        if inputs.passed_over:
            files = ", ".join(f"{n} {suffix}" for suffix, n in sorted(inputs.passed_over.items()))
            self._say(f"[yellow]skipped, not images:[/] {escape(files)}")
        if (name := model.get("policy")) in ("tiny", "tiny-scenes"):
            self._say(
                f"[yellow]the policy {name} knows drawn coloured shapes only; for photographs use a real model:[/]\n"
                "  --policy geshang/Seg-R1-7B (needs a GPU with 24 GB; downloaded on first use)"
            )

    def on_image(self, done: int, total: int) -> None:
        """See `folder_job.run.OnImage`."""
        self._progress.update(done, total)

    def __enter__(self) -> View:
        quieten()
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, traceback)

    def show(self, summary: Summary) -> None:
        """A row for each query, then where the files are, then what could not be used."""
        if summary.tallies:
            self._console.print(_table(summary), "")
        self._console.print("\n".join(_files(summary)), soft_wrap=True)
        if summary.pruned_images or summary.pruned_queries:
            queries = ", ".join(map(repr, summary.pruned_queries)) or "none"
            self._say(f"removed: {counted(summary.pruned_images, 'image')}, queries {escape(queries)}")
        for line in _problems(summary.broken):
            self._say(line)

    def _say(self, line: str) -> None:
        self._progress.say(line)


def _table(summary: Summary) -> Table:
    """Counts by query, over all runs of this folder; the queries with the most images where there are many."""
    before = f", {counted(summary.skipped, 'image')} done before" if summary.skipped else ""
    table = Table(title=f"{counted(summary.new, 'image')} done now{before}", title_justify="left")
    table.add_column("query", overflow="fold")
    for column in ("asked", "found in", "objects", "nothing there", "repaired", "unreadable"):
        table.add_column(column, justify="right")
    most = sorted(summary.tallies.items(), key=lambda item: -item[1].images)[:MOST_QUERIES]
    for query, tally in most:
        table.add_row(escape(query), *_counts([tally]))
    if len(summary.tallies) > 1:
        table.add_section()
        table.add_row(f"all {len(summary.tallies)}", *_counts(summary.tallies.values()))
    return table


def _counts(tallies: Iterable[Tally]) -> list[str]:
    rows = [(one.images, one.found, one.objects, one.nothing, one.repaired, one.unread) for one in tallies]
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
    yield f"\n[red]{counted(len(broken), 'image')} could not be processed; nothing was written for them:[/]"
    for problem in broken[:MOST_PROBLEMS]:
        yield f"  {escape(' '.join(problem.split()))}"
    if len(broken) > MOST_PROBLEMS:
        yield f"  and {len(broken) - MOST_PROBLEMS} more"
