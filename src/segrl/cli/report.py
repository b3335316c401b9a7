"""segrl report: write a run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]) -> None:
    """Write report.html and summary.json for a run, also for one that is still going."""
    from segrl.report import write_report

    typer.echo(write_report(directory))
