"""segrl train: run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; it says method: grpo or sft.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the run; one that was stopped there is resumed.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Entries put in place of the recipe's.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Train on N processes of this machine, one per GPU.")
    ] = 1,
) -> None:
    """Run a recipe: measure the policy if the recipe says on what, train it, measure again, report."""
    from segrl.cli.show import run_and_show
    from segrl.training.stages import load_stages

    model = None
    for stage in load_stages(recipe, overrides or ()):
        if stage.name:
            print(f"stage {stage.name}")
        model = run_and_show(stage.resolved(model), stage.directory(out), processes)
