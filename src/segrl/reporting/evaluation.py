"""The page of one evaluation: numbers with intervals, parts, the worst, median and best answers, every failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrl.evaluation import CATALOGUE, EvalDir, EvalRecord
from segrl.evaluation.general import read_general
from segrl.evaluation.records import iter_records
from segrl.evaluation.result import summary_of, with_baseline
from segrl.evaluation.table import TITLES, Table, read_table
from segrl.files import write_atomically
from segrl.reporting.pages import environment, page_file
from segrl.reporting.pictures import kept_pictures
from segrl.training.checkpoints import Pictures
from segrl.types import Example

SHOWN = 6
"""Examples of each kind on the page."""

CLIPPED = 600
"""Characters of a failed answer's text on the page; the whole stands in records.jsonl."""


@dataclass(frozen=True)
class Failure:
    """An answer that could not be read."""

    id: str
    query: str
    status: str
    detail: str
    text: str


@dataclass(frozen=True)
class Group:
    """Answers shown together under one heading."""

    title: str
    note: str
    records: tuple[EvalRecord, ...]


def shown_places(table: Table, count: int = SHOWN) -> dict[str, list[int]]:
    """Places of the worst, the median and the best answers among those that could be read, each place once."""
    failed = table.columns["failed"]
    read = [place for place in np.argsort(table.columns["iou"], kind="stable").tolist() if not failed[place]]
    middle = max(0, len(read) // 2 - count // 2)
    found: dict[str, list[int]] = {"worst": read[:count], "best": read[::-1][:count]}
    taken = {place for places in found.values() for place in places}
    found["median"] = [place for place in read[middle : middle + count] if place not in taken]
    found["best"] = [place for place in found["best"] if place not in found["worst"]]
    return found


def keep_pictures(path: Path | str, examples: Sequence[Example]) -> None:
    """Keeps the pictures that the page of the evaluation in `path` shows; `examples` are those evaluated."""
    directory = EvalDir(Path(path))
    kept = _kept(directory)
    places = [place for part in shown_places(read_table(directory.records)).values() for place in part]
    for place in sorted(set(places)):
        example = examples[place]
        kept.save(example.image_id, example.image)


def _kept(directory: EvalDir) -> Pictures:
    return Pictures(directory.path / "evaluation" / "images")


def write_page(path: Path | str) -> Path:
    """Writes report.html for what was measured in `path`, an evaluation, general ability or both; returns its path.

    Raises DataError if there is neither, or the evaluation is not finished.
    """
    directory = EvalDir(Path(path))
    general = read_general(directory.path)
    if general is None or directory.run.exists():
        return write_evaluation(path)
    page = (
        environment()
        .get_template("general.html.jinja")
        .render(title=f"General ability: {general['run']['checkpoint']}", general=general, style=page_file("style.css"))
    )
    write_atomically(directory.report, page)
    return directory.report


def write_evaluation(path: Path | str) -> Path:
    """Writes report.html for the finished evaluation in `path`; returns the page's path.

    Raises DataError if there is none, or it is not finished.
    """
    directory = EvalDir(Path(path))
    table, summary = read_table(directory.records), summary_of(directory)
    groups, failures = _groups(directory, table)
    write_atomically(directory.report, _render(directory, summary, groups, failures))
    return directory.report


def _groups(directory: EvalDir, table: Table) -> tuple[list[Group], list[Failure]]:
    """The answers that the page shows with pictures, and every failure, in one pass over the records."""
    wanted = shown_places(table)
    places = {place for part in wanted.values() for place in part}
    kept: dict[int, EvalRecord] = {}
    failures = []
    for place, record in enumerate(iter_records(directory.records)):
        if place in places:
            kept[place] = record
        if record.status.is_failure:
            text = record.text if len(record.text) <= CLIPPED else record.text[:CLIPPED] + " …"
            failures.append(Failure(record.id, record.query, record.status.value, record.detail, text))
    titles = (
        ("worst", "The worst", "Lowest overlap among the answers that could be read."),
        ("median", "The median", "From the middle of the list."),
        ("best", "The best", "Highest overlap."),
    )
    groups = [Group(title, note, tuple(kept[place] for place in wanted[name])) for name, title, note in titles]
    return [group for group in groups if group.records], failures


def _render(
    directory: EvalDir, summary: Mapping[str, Any], groups: Sequence[Group], failures: Sequence[Failure]
) -> str:
    run = summary["run"]
    return (
        environment()
        .get_template("evaluation.html.jinja")
        .render(
            title=f"{run['dataset']['name']}: {run['policy']['name']}",
            under=facts(summary),
            summary=summary,
            baseline=with_baseline(directory).get("baseline"),
            catalogue=[m for m in CATALOGUE if summary["metrics"].get(m.name, {}).get("value") is not None],
            headline=[metric for metric in CATALOGUE if metric.name in ("giou", "ciou", "s_measure", "parse_rate")],
            titles=TITLES,
            groups=groups,
            failures=failures,
            pictures=kept_pictures((record for group in groups for record in group.records), _kept(directory)),
            general=read_general(directory.path),
            style=page_file("style.css"),
        )
    )


def facts(summary: Mapping[str, Any]) -> str:
    """What was evaluated on what, in a line."""
    run = summary["run"]
    words = [
        f"{run['dataset']['name']} ({summary['n']} queries, {summary['images']} images)",
        f"policy {run['policy']['name']}",
        f"segmenter {run['segmenter']['name']}",
        f"answers {run['prompt']['answer_format']}",
        run["decoding"]["test_time"],
    ]
    return " · ".join(words)
