"""segrl report: write a run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]) -> None:
    """Write the page of a training run (also of one that is still going) or of an evaluation again."""
    from segrl.evaluation import EvalDir
    from segrl.evaluation.general import read_general

    if EvalDir(directory).is_finished or read_general(directory) is not None:
        from segrl.report.evaluation import write_page

        typer.echo(write_page(directory))
    else:
        from segrl.report import write_report

        typer.echo(write_report(directory))
