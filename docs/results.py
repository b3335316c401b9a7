"""Writes docs/results.md: published tables beside ours, which come from evaluation summaries and nowhere else.

    python docs/results.py                                          the page again
    python docs/results.py sam-r1-7b=runs/eval/a sam-r1-7b=runs/eval/b   with what these runs measured
    python docs/results.py general.RL=runs/general/rl                the same for general ability

KEY is a table's key in results.yaml. A run fills the row of its own data set and split; what was read of
it is kept in results.json, so that the page can be written without the runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segrl.datasets.image_masks import LAYOUTS
from segrl.errors import DataError, SegrlError
from segrl.files import write_atomically
from segrl.inference import PLAIN

HERE = Path(__file__).parent

HEAD = """# Results

Published numbers, and ours beside them. This page is written by `docs/results.py` from results.yaml (the published
numbers) and results.json (what evaluations of ours measured); nothing of ours is typed in by hand, and an empty
cell says that nobody has run it yet. Intervals are 95%, from a bootstrap over images. How each number is made
is in [protocol.md](protocol.md). Zero-shot, fine-tuned and voted numbers never share a column.

Marked *note*: from readers' notes of the paper; the others stand in the paper's own table. cIoU on ReasonSeg val (200
images) is unstable: the same weights have been reported at 62.0 and 52.0.
"""


def main(arguments: Sequence[str], place: Path = HERE) -> None:
    """Reads the runs that are named, keeps their numbers, and writes the page."""
    published = yaml.safe_load((HERE / "results.yaml").read_text(encoding="utf-8"))
    kept = place / "results.json"
    ours: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for argument in arguments:
        key, equals, run = argument.partition("=")
        if not equals:
            raise DataError(f"write KEY=RUN, not {argument!r}")
        ours.setdefault(key, {}).update(read_run(published, key, Path(run)))
    if arguments:
        write_atomically(kept, json.dumps(ours, indent=1, sort_keys=True) + "\n")
    write_atomically(place / "results.md", page(published, ours))


def read_run(published: Mapping[str, Any], key: str, run: Path) -> dict[str, Any]:
    """Row name → what the run measured for it. Raises DataError for a run that belongs in no row of that table."""
    if key.startswith("general."):
        return _read_general(published, key, run)
    tables = {table["key"]: table for table in published["tables"]}
    if key not in tables:
        raise DataError(f"there is no table {key!r}; there are {', '.join(tables)} and general.base, .SFT and .RL")
    summary = _read(run / "summary.json")
    dataset, decoding = summary["run"]["dataset"], summary["run"]["decoding"]
    if decoding["test_time"] != PLAIN:
        raise DataError(f"{run} was decoded with test-time options ({decoding['test_time']}): it has no column here")
    for row in tables[key]["rows"]:
        if row["dataset"] == dataset["name"] and row["options"] == _default_split(row, dataset["options"]):
            return {row["name"]: {"n": summary["n"], "metrics": summary["metrics"], "run": summary["run"]}}
    raise DataError(f"{run} is of {dataset['name']} {dataset['options']}, which is no row of {key}")


def _default_split(row: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run with the split that the reader takes where none is named."""
    default = {"split": "test" if row["dataset"] in LAYOUTS else "val"} if "split" in row["options"] else {}
    return {**default, **options}


def _read_general(published: Mapping[str, Any], key: str, run: Path) -> dict[str, Any]:
    name = key.removeprefix("general.")
    names = [row["name"] for row in published["general"]["rows"]]
    if name not in names:
        raise DataError(f"general ability has the rows {', '.join(names)}, not {name!r}")
    found = _read(run / "general.json")
    return {name: {"scores": {key: one["value"] for key, one in found["benchmarks"].items()}, "run": found["run"]}}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: a finished evaluation has it") from error


def page(published: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The whole of results.md."""
    parts = [HEAD]
    for table in published["tables"]:
        parts.append(_table(table, ours.get(table["key"], {})))
    parts.append(_general_table(published["general"], ours))
    return "\n".join(parts)


def _table(table: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names, digits, scale = table["metrics"], table["digits"], table["scale"]
    lines = [f"## {table['title']}", "", f"`docs/results.py {table['key']}=RUN` fills it.", ""]
    lines += [table["note"], ""] if "note" in table else []
    header = ["", *(f"{name}, published" for name in names), *(f"{name}, ours" for name in names), "n"]
    lines += [_row(header), _row(["---"] * len(header))]
    for row in table["rows"]:
        mark = " (note)" if row["mark"] == "note" else ""
        found = ours.get(row["name"], {"metrics": {}, "n": ""})
        given = ["" if value is None else f"{value:.{digits}f}{mark}" for value in row["published"]]
        measured = [_measured(found["metrics"].get(name), scale, digits) for name in names]
        lines.append(_row([row["name"], *given, *measured, str(found["n"])]))
    return "\n".join([*lines, ""])


def _general_table(table: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names = list(table["rows"][0]["published"])
    lines = [f"## {table['title']}", "", "`docs/results.py general.ROW=RUN` fills it.", "", table["note"], ""]
    header = ["", *(f"{name}, published" for name in names), *(f"{name}, ours" for name in names)]
    lines += [_row(header), _row(["---"] * len(header))]
    for row in table["rows"]:
        scores = ours.get(f"general.{row['name']}", {}).get(row["name"], {}).get("scores", {})
        given = [f"{row['published'][name]:g}" for name in names]
        measured = ["" if scores.get(name) is None else f"{scores[name]:.1f}" for name in names]
        lines.append(_row([row["name"], *given, *measured]))
    return "\n".join([*lines, ""])


def _measured(metric: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if metric is None or metric["value"] is None:
        return ""
    low_high = metric.get("ci95")
    interval = "" if not low_high else f" ({low_high[0] * scale:.{digits}f}–{low_high[1] * scale:.{digits}f})"
    return f"{metric['value'] * scale:.{digits}f}{interval}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SegrlError as error:
        sys.exit(f"results: {error}")
