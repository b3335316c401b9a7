"""segrl train, quickstart and export: run a recipe, and export its policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli.common import watch_evaluation

if TYPE_CHECKING:
    from segrl.training import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; see docs/recipes.md.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory; a run in it is resumed.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe's entries.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Train with N processes on this machine, one per GPU.")
    ] = 1,
) -> None:
    """Run a recipe (SFT or GRPO): evaluate the policy, train it, evaluate it again, write a report."""
    from segrl.training.parts import open_stages

    model = None
    for stage in open_stages(recipe, overrides or ()):
        if stage.name:
            print(f"stage {stage.name}")
        model = run_and_show(stage.resolved(model), stage.directory(out), processes)


def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory; a run in it is resumed.")] = Path(
        "runs/quickstart"
    ),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed [default: the recipe's].")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps [default: the recipe's].")] = None,
) -> None:
    """Train the shipped tiny policy with GRPO on mask rewards; evaluate it before and after. Needs no GPU."""
    from segrl.tiny import quickstart_recipe
    from segrl.training.recipe import load_recipe

    overrides = [] if seed is None else [f"seed={seed}"]
    overrides += [] if steps is None else [f"trainer.max_steps={steps}"]
    run_and_show(load_recipe(quickstart_recipe(), overrides), out)


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Directory of a run, or of a stage for a recipe with stages.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output directory [default: RUN/export].")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge an adapter into its base model.")] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Export the checkpoint with the highest held-out gIoU [default: the last one]."),
    ] = False,
    dtype: Annotated[str | None, typer.Option(help="Data type of the saved weights, for instance bfloat16.")] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to the hub.")] = None,
) -> None:
    """Export a trained policy as a model directory, with processor and model card, that from_pretrained loads."""
    from segrl.training.export import export as write

    write(run, out or run / "export", merge=merge, best=best, dtype=dtype, push=push, say=typer.echo)


def run_and_show(recipe: Recipe, out: Path, processes: int = 1) -> Path:
    """Runs a recipe in `out` with live progress; ends with the table before/after and the report's path.

    Returns the directory of the trained policy.
    """
    from rich.console import Console

    from segrl.cli.evaluation_tables import before_after_table
    from segrl.errors import quieten
    from segrl.experiment import improve

    quieten()
    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    done = improve(
        recipe,
        out,
        processes=processes,
        say=say,
        watch=lambda stage: watch_evaluation(console, f"measuring {stage} training"),
    )
    if "comparison" in done.summary:
        console.print(before_after_table(done.summary, done.overlap))
    if done.overlap is not None and done.overlap.warning:
        console.print(f"WARNING: {done.overlap.warning}", style="bold red", highlight=False, soft_wrap=True)
    say(f"policy  {done.model_dir}")
    say(f"report  {done.report_path}")
    return done.model_dir
