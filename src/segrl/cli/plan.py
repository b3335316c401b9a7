"""segrl plan: does a recipe fit, and what to change if not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from segrl.memory_estimate import Setting


def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe; no model or data is loaded.")],
    gpus: Annotated[int, typer.Option(min=1, metavar="N", help="Number of GPUs.")] = 1,
    memory: Annotated[float, typer.Option(min=1, metavar="GB", help="Memory of each GPU, in 10^9 bytes.")] = 80.0,
    image: Annotated[str, typer.Option(metavar="WxH", help="Image size, if the recipe does not set one.")] = "640x480",
    samples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also estimate the cost of a vote of N samples on an H100.")
    ] = 0,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe's entries.")
    ] = None,
) -> None:
    """Estimate the GPU memory that a recipe needs, part by part; exit status 1 if it does not fit.

    The estimate has not been compared with measured GPU memory yet. Needs no network and no GPU.
    """
    from segrl.errors import SegrlError
    from segrl.memory_estimate import settings_of
    from segrl.training.recipe import load_stages

    size = re.fullmatch(r"(\d+)x(\d+)", image)
    if size is None or "0" in size.groups():
        raise SegrlError(f"--image takes WIDTHxHEIGHT, for instance 640x480, not {image}")
    image_wh = (int(size[1]), int(size[2]))
    stages = load_stages(recipe, overrides or ())
    settings = settings_of(stages, gpus, memory, image_wh)
    fit = [_show(stage.name, setting) for stage, setting in zip(stages, settings, strict=True)]
    if samples:
        _show_answer(settings[-1], image_wh, samples)
    typer.echo("\nestimated from dimensions; not compared with measured GPU memory yet")
    if not all(fit):
        raise typer.Exit(1)


def _show(name: str, setting: Setting) -> bool:
    """Prints one stage's table; whether it fits."""
    from segrl.memory_estimate import altered, needs, smallest_changes
    from segrl.memory_estimate.estimate import GB, fits, peak

    parts = needs(setting)
    phase, most = peak(parts)
    if name:
        typer.echo(f"\nstage {name}")
    for part in parts:
        when = "" if part.phase == "always" else f"in the {part.phase}"
        typer.echo(f"  {part.part:<14} {part.nbytes / GB:7.1f} GB  {when:<15} {part.what}")
    enough = fits(setting)
    verdict = "fits" if enough else "does not fit"
    typer.echo(f"  {'most':<14} {most / GB:7.1f} GB  in the {phase}: {verdict} {_gpus(setting)}")
    if not enough:
        after = smallest_changes(setting)
        if after is None:
            typer.echo("  no set of up to four changes makes it fit: a smaller model, or more GPUs")
        else:
            typer.echo(f"  it would, with {peak(needs(after))[1] / GB:.1f} GB, after:")
            for said in after.changed:
                typer.echo(f"    {said}")
            for line in _said_of(setting, after, altered(setting, after)):
                typer.echo(f"  {line}")
    return enough


def _said_of(before: Setting, after: Setting, alters: list[str]) -> list[str]:
    """What the changes mean for the training and for the host's memory."""
    from segrl.memory_estimate.estimate import GB

    lines = [f"this alters the training: {', '.join(alters)}" if alters else "the training stays as it is"]
    if after.zero == 3 and before.zero < 3:
        lines.append("FSDP's full shard (trainer.fsdp) divides as much as ZeRO-3 does")
    if after.offload and not before.offload:
        host = after.trainable * 2 * after.trained_bytes / after.gpus / GB
        lines.append(f"the optimizer then lies in {host:.0f} GB of the host's memory for each GPU")
    return lines


def _show_answer(setting: Setting, image_wh: tuple[int, int], samples: int) -> None:
    """Prints what one greedy answer costs, and the vote."""
    from segrl.memory_estimate import answer_cost

    for count in dict.fromkeys((1, samples)):
        cost = answer_cost(setting.policy, image_wh, samples=count)
        many = "1 answer" if count == 1 else f"{count} samples"
        said = f"{cost.read} tokens read, {cost.written} written"
        typer.echo(f"  {many:<14} {cost.seconds:7.2f} s   {said}, estimated for one H100 and 250 tokens per answer")


def _gpus(setting: Setting) -> str:
    from segrl.memory_estimate.estimate import GB

    each = f"{setting.memory / GB:g} GB"
    return f"{each}" if setting.gpus == 1 else f"{setting.gpus} × {each}"
