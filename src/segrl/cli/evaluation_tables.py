"""An evaluation, and the comparison of two, as tables that a newcomer can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from segrl.evaluation import CATALOGUE, Overlap
from segrl.evaluation.overlap import words
from segrl.evaluation.table import TITLES
from segrl.reporting.evaluation import facts

LEFT_OUT = frozenset({"pr@0.6", "pr@0.8", "e_adaptive", "f_mean", "f_adaptive", "tokens"})
"""Measures that stand in metrics.json and on the page, but not in the terminal."""

_STYLES = {True: "green", False: "red", None: "dim"}


def tables_of(summary: Mapping[str, Any]) -> Iterator[Table]:
    """The measures with their intervals and what they say, beside those of the baseline; then gIoU by parts."""
    baseline = summary.get("baseline")
    table = _table(facts(summary), "measure", "value", "95% interval", *(["as asked"] if baseline else []))
    table.add_column("meaning")
    left_out = LEFT_OUT if summary["metrics"]["n_acc"]["value"] is not None else LEFT_OUT | {"t_acc"}
    for metric in CATALOGUE:
        found = summary["metrics"].get(metric.name)
        if found and found["value"] is not None and metric.name not in left_out:
            arrow = " (lower is better)" if metric.lower_is_better else ""
            asked = [number(baseline.get(metric.name, {}).get("value"))] if baseline else []
            table.add_row(metric.title, number(found["value"]), interval(found["ci95"]), *asked, metric.meaning + arrow)
    yield table
    if summary.get("calibration"):
        yield _calibration(summary["calibration"])
    if summary["slices"]:
        yield _parts(summary["slices"])


def _calibration(found: Mapping[str, Any]) -> Table:
    auroc = "" if found["auroc"] is None else f", AUROC {found['auroc']:.3f}"
    title = f"{found['n']} voted objects by agreement; right: IoU ≥ 0.5{auroc}"
    table = _table(title, "agreement", "n", "right", "95% interval", "mean IoU")
    for one in found["bins"]:
        row = [f"{one['above']:g}–{one['to']:g}", str(one["n"]), number(one["right"]["value"])]
        table.add_row(*row, interval(one["right"]["ci95"]), number(one["iou"]["value"]))
    return table


def _parts(slices: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("gIoU by slice", "", "n", "gIoU", "95% interval", "parsed")
    for dimension, parts in slices.items():
        table.add_row(f"[bold]{_title(dimension)}[/]")
        for position, (name, part) in enumerate(parts.items(), 1):
            found, read = part["metrics"]["giou"], part["metrics"]["parse_rate"]["value"]
            row = [f"  {name.replace('_', ' ')}", str(part["n"]), number(found["value"]), interval(found["ci95"])]
            table.add_row(*row, f"{read:.0%}", end_section=position == len(parts))
    return table


def answers_line(summary: Mapping[str, Any]) -> str:
    """What became of the answers."""
    counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in summary["statuses"].items())
    failed, in_words = sum(summary["failures"].values()), summary.get("none_in_words", {}).get("n", 0)
    words = f", {in_words} of them say in words that nothing is there" if in_words else ""
    return f"answers {counts}" + (f"; {failed} could not be parsed and score 0{words}" if failed else "")


def reading_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The lenient reading beside the strict one that counts, where it changes anything, and hints about the frame."""
    lenient, variant = summary.get("lenient"), summary["variants"].get("lenient_reading")
    if lenient and variant and lenient["changed"]:
        giou, ciou = (number(variant["metrics"][name]["value"]) for name in ("giou", "ciou"))
        yield (
            f"lenient gIoU {giou}, cIoU {ciou} by the lenient reading, which changes {lenient['changed']} answers and "
            f"parses {lenient['failures_read']} failures; the figures above are by the strict reading"
        )
    for hint in summary.get("hints", ()):
        yield f"hint    {hint}"


def speed_line(summary: Mapping[str, Any]) -> str:
    """How fast it went, over the time in which processes that came to their end worked."""
    speed = summary["speed"]
    if speed["samples_per_second"] is None:
        return "speed   unknown: every process was stopped early"
    many = f" on {speed['processes']} processes" if speed["processes"] > 1 else ""
    memory = f", peak memory {speed['peak_memory_mib']:.0f} MiB per process" if speed["peak_memory_mib"] else ""
    return f"speed   {speed['samples_per_second']:.1f} samples per second over {speed['samples']} samples{many}{memory}"


def general_table(found: Mapping[str, Any]) -> Table:
    """General ability: each benchmark's score, the base's, and the change."""
    run = found["run"]
    of_base = f" · base {run['base']}" if run["base"] else ""
    table = _table(f"general ability · {run['checkpoint']}{of_base}", "benchmark", "score", "base", "change")
    for name, one in found["benchmarks"].items():
        change = "–" if one["change"] is None else f"{one['change']:+.1f}"
        table.add_row(name, *("–" if one[key] is None else f"{one[key]:.1f}" for key in ("value", "base")), change)
    return table


def comparison_tables(found: Mapping[str, Any], names: tuple[str, str]) -> Iterator[Table]:
    """Every measure of A and B with the difference, then the difference of gIoU by parts."""
    title, runs = f"B minus A on {found['n']} queries, {found['images']} images", (f"A  {names[0]}", f"B  {names[1]}")
    table = _table(title, "measure", *runs, "difference", "95% interval", wraps=True)
    for metric in CATALOGUE:
        row = found["metrics"].get(metric.name)
        if row and row["difference"] is not None:
            table.add_row(metric.title, *_change(row, metric.lower_is_better))
    yield table
    yield change_table(found, "gIoU by slice", ("A", "B"), found["slices"])


def change_table(found: Mapping[str, Any], title: str, names: tuple[str, str], dimensions: Iterable[str]) -> Table:
    """gIoU of all and of every part of some dimensions: n, both values, the change with its interval, answers read."""
    table = _table(title, "", "n", *names, "change", "95% interval", "parsed")
    table.add_row("all", *_part_of_change(found), end_section=True)
    for dimension in dimensions:
        table.add_row(f"[bold]{_title(dimension)}[/]")
        for name, part in found["slices"].get(dimension, {}).items():
            table.add_row(f"  {name.replace('_', ' ')}", *_part_of_change(part))
    return table


def before_after_table(summary: Mapping[str, Any], overlap: Overlap | None = None) -> Table:
    """gIoU by kind of query before and after training, as `segrl compare` shows it."""
    title = f"gIoU on {words(overlap)}, {summary['steps']} steps, {summary['seconds']:.0f} s"
    return change_table(summary["comparison"], title, ("before", "after"), ["kind"])


def _part_of_change(part: Mapping[str, Any]) -> list[str]:
    read = part["metrics"]["parse_rate"]
    reads = "–" if read["a"] is None else " → ".join(dict.fromkeys(f"{read[side]:.0%}" for side in "ab"))
    return [str(part["n"]), *_change(part["metrics"]["giou"], False), reads]


def checkpoints_table(found: Mapping[str, Any]) -> Table:
    """Every measure of several runs, and the best of each."""
    names = [Path(run).name for run in found["runs"]]
    title = f"{found['n']} queries, {found['images']} images"
    table = _table(title, "measure", *names, "best of checkpoints", wraps=True)
    for metric in CATALOGUE:
        best = found["best_of_checkpoints"].get(metric.name)
        if best and best["value"] is not None and metric.name not in LEFT_OUT:
            values = [number(metrics[metric.name]["value"]) for metrics in found["runs"].values()]
            table.add_row(metric.title, *values, f"{number(best['value'])} ({Path(best['run']).name})")
    return table


def comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """How many answers changed, and what the two runs do not share."""
    changed = found["changed"]
    yield (
        f"changed {changed['text']:.1%} of the texts, {changed['mask']:.1%} of the masks, "
        f"{changed['status']:.1%} of the statuses"
    )
    for name, values in found["settings"].items():
        yield f"differs {name}: {values}"


def number(value: float | None) -> str:
    """Three digits; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def interval(ends: Sequence[float] | None, sign: str = "") -> str:
    """`0.512 to 0.561`; a dash for None."""
    return "–" if ends is None else f"{ends[0]:{sign}.3f} to {ends[1]:{sign}.3f}"


def _table(title: str, first: str, *numbers: str, wraps: bool = False) -> Table:
    """A table of a column of names and columns of numbers, without vertical lines: the widest fits into 80 columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=not wraps)
    return table


def _title(dimension: str) -> str:
    return TITLES.get(dimension, dimension.replace("_", " "))


def _change(row: Mapping[str, Any], lower_is_better: bool) -> list[str]:
    ends = row["ci95"]
    is_better = None if ends is None or ends[0] <= 0 <= ends[1] else (ends[0] > 0) != lower_is_better
    difference = "–" if row["difference"] is None else f"[{_STYLES[is_better]}]{row['difference']:+.3f}[/]"
    return [number(row["a"]), number(row["b"]), difference, interval(ends, "+")]
