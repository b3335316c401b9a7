"""segrl suite: general ability of a checkpoint and of its base, beside an evaluation or alone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer


def suite(
    policy: Annotated[str, typer.Option(metavar="P", help="A checkpoint's directory or a name on the hub.")],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What the policy was trained from; the change is shown.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the scores go, for instance that of an evaluation [default: runs/eval/general-P]"
        ),
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="Make an environment with lmms-eval, once.")] = False,
    lmms_python: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="The Python of an environment that has lmms-eval.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="N samples of each benchmark.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Handed on to lmms-eval.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="GPUs to share the work.")] = 1,
) -> None:
    """Measure general ability with lmms-eval: MMBench, MME, POPE and AI2D, and the change from the base."""
    from rich.console import Console

    from segrl.cli.evaluation_tables import general_table
    from segrl.errors import SegrlError
    from segrl.evaluation.general import RESULT, check_policy, general
    from segrl.reporting import write_report

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SegrlError("segrl suite is started once: with --processes N lmms-eval shares its work")
    place = out or Path("runs/eval") / re.sub(r"[^\w.+]+", "_", f"general-{Path(policy).name}")
    check_policy(place, policy)
    found = general(
        policy,
        place,
        base=base,
        python=lmms_python,
        install=install,
        limit=limit,
        batch_size=batch_size,
        processes=processes,
        say=typer.echo,
    )
    Console().print(general_table(found))
    typer.echo(f"scores  {place / RESULT}\nreport  {write_report(place)}")
