"""segrl export: a run's policy as one model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory; of a recipe with stages, a stage's.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write it; without it RUN/export.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Add an adapter into the weights below it.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint with the highest held-out gIoU.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Save the weights in it, for instance bfloat16.")] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Send it to the hub as well.")] = None,
) -> None:
    """Write one ordinary model directory with processor and model card, which transformers and vLLM load."""
    from segrl.training.export import export as write

    write(run, out or run / "export", merge=merge, best=best, dtype=dtype, push=push, say=typer.echo)
