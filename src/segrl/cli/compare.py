"""segrl compare: what changed between two evaluations of the same examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The directory of one evaluation.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The directory of another, of the same examples.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all numbers here as JSON too.")] = None,
) -> None:
    """Show B minus A for every measure and part, with intervals from a paired bootstrap over images."""
    from rich.console import Console

    from segrl.cli.evaluation_tables import comparison_lines, comparison_tables
    from segrl.evaluation import compare_runs
    from segrl.files import write_atomically

    found = compare_runs(run_a, run_b)
    console = Console()
    for table in comparison_tables(found, (run_a.name, run_b.name)):
        console.print(table)
    for line in comparison_lines(found):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if out is not None:
        write_atomically(out, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        typer.echo(f"numbers {out}")
