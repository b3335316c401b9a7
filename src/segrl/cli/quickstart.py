"""segrl quickstart: the main job on the embedded default, with no GPU and no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the run is kept.")] = Path("runs/quickstart"),
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer or more steps than the recipe's.")] = None,
) -> None:
    """Make the shipped tiny policy point better: measure it, train it on rewards from masks, measure again."""
    from segrl.cli.show import run_and_show
    from segrl.tiny import quickstart_recipe
    from segrl.training.recipe import load_recipe

    overrides = [] if seed is None else [f"seed={seed}"]
    overrides += [] if steps is None else [f"trainer.max_steps={steps}"]
    run_and_show(load_recipe(quickstart_recipe(), overrides), out)
