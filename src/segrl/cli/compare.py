"""segrl compare and segrl report: finished evaluations and runs, shown again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN_A RUN_B [RUN]...", help="Directories of evaluations of the same examples.")
]


def compare(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all numbers here as JSON too.")] = None,
) -> None:
    """Show B minus A for every measure and part, with paired intervals; of more runs, what each measured."""
    from segrl.errors import SegrlError
    from segrl.files import make_directory, write_atomically

    if len(runs) < 2:
        raise SegrlError("name two evaluations to compare, or more")
    if out is not None:
        if out.is_dir():
            raise SegrlError(f"{out} is a directory: --out names the file to write")
        make_directory(out.parent)
    found = _two(runs) if len(runs) == 2 else _several(runs)
    if out is not None:
        write_atomically(out, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        typer.echo(f"numbers {out}")


def _two(runs: Sequence[Path]) -> Mapping[str, Any]:
    from rich.console import Console

    from segrl.cli.evaluation_tables import comparison_lines, comparison_tables
    from segrl.evaluation import compare_runs

    found = compare_runs(*runs)
    console = Console()
    for table in comparison_tables(found, (runs[0].name, runs[1].name)):
        console.print(table)
    for line in comparison_lines(found):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return found


def _several(runs: Sequence[Path]) -> Mapping[str, Any]:
    from rich.console import Console

    from segrl.cli.evaluation_tables import checkpoints_table
    from segrl.evaluation import best_of_checkpoints

    found = best_of_checkpoints(runs)
    Console().print(checkpoints_table(found))
    return found


def report(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]) -> None:
    """Write the page of a training run (also of one that is still going) or of an evaluation again."""
    from segrl.api import report as write

    typer.echo(write(directory))
