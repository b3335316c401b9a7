"""segrl train, quickstart and export: run a recipe, and export its policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli.common import watch_evaluation

if TYPE_CHECKING:
    from segrl.training import Recipe


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
    from segrl.training.recipe import load_stages

    model = None
    for stage in load_stages(recipe, overrides or ()):
        if stage.name:
            print(f"stage {stage.name}")
        model = run_and_show(stage.resolved(model), stage.directory(out), processes)


def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the run is kept.")] = Path("runs/quickstart"),
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer or more steps than the recipe's.")] = None,
) -> None:
    """Make the shipped tiny policy point better: measure it, train it on rewards from masks, measure again."""
    from segrl.tiny import quickstart_recipe
    from segrl.training.recipe import load_recipe

    overrides = [] if seed is None else [f"seed={seed}"]
    overrides += [] if steps is None else [f"trainer.max_steps={steps}"]
    run_and_show(load_recipe(quickstart_recipe(), overrides), out)


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
