"""segrl doctor and segrl prompts: what is installed and missing, and what a model is sent."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import Annotated

import typer

from segrl.cli.common import Base, exits_cleanly
from segrl.devices import core_count, cpu_compute_type, installed_version

prompts = typer.Typer(help="Show the prompt that a model is sent.", no_args_is_help=True, rich_markup_mode=None)


def doctor() -> None:
    """Print versions and devices, and how to install what is missing; exit status 1 if segrl cannot run."""
    from segrl import __version__

    typer.echo(f"segrl {__version__}, Python {platform.python_version()}, {platform.platform()}")
    typer.echo("\npackages")
    missing = list(_packages())
    typer.echo("\ndevices")
    for line in _devices():
        typer.echo(f"  {line}")
    typer.echo("\nembedded default")
    missing += list(_tiny())
    typer.echo("\nnothing is missing" if not missing else "\nmissing:")
    for line in missing:
        typer.echo(f"  {line}")
    if missing:
        raise typer.Exit(1)


def _packages() -> Iterator[str]:
    """Prints each requirement with what is installed; yields the pip line of each one that segrl needs and lacks."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    for text in requires("segrl") or []:
        requirement = Requirement(text)
        extra = _extra(text)
        if extra in ("dev", "docs"):
            continue
        installed = installed_version(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        add = f"extra {extra}, in a clone: pip install '.[{extra}]'" if extra else f"pip install '{wanted}'"
        note = "" if fits else f"  optional: {add}" if extra else f"  needs {requirement.specifier}: {add}"
        typer.echo(f"  {requirement.name:<24} {installed or 'not installed':<16}{note}".rstrip())
        if not fits and not extra:
            yield f"{requirement.name}: {add}"


def _extra(requirement: str) -> str | None:
    """The extra that a requirement of the package's metadata belongs to: `… ; extra == "timm"`."""
    _, found, rest = requirement.partition("extra ==")
    return rest.strip().strip("'\"") if found else None


def _devices() -> Iterator[str]:
    yield f"CPU: {core_count()} of {os.cpu_count()} cores for this process"
    try:
        import torch
    except ImportError:
        yield "GPU: unknown without torch"
        return
    chosen = cpu_compute_type()
    yield f"CPU: training computes in {chosen.name}" + (f": {chosen.measured}" if chosen.measured else "")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield f"GPU {index}: {torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
    if not torch.cuda.is_available():
        yield "GPU: none that torch can use; segrl trains on the CPU (the tiny policy is made for that)"


def _tiny() -> Iterator[str]:
    """Prints where the shipped policies lie; yields what to do if the one for drawn scenes does not."""
    from segrl.tiny import DEFAULT_POLICY, PHOTOS, policy_dir

    for name, place in (("tiny-scenes", policy_dir()), ("tiny-photos", PHOTOS)):
        weights = sorted(place.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in weights) / 2**20
        default = ", the default" if name == DEFAULT_POLICY else ""
        typer.echo(f"  {name}{default}: " + (f"{place} ({size:.1f} MiB)" if weights else "not in this build"))
    if not (policy_dir() / "model.safetensors").is_file():
        yield "the weights of tiny-scenes: install segrl again (segrl train recipes/tiny_cold_start.yaml makes them)"


@prompts.callback()
def _prompts() -> None:
    """Show the prompt that a model is sent."""


def show(
    query: Annotated[str, typer.Option("--query", "-q", metavar="TEXT", help="The query.")] = "the cup",
    policy: Annotated[
        str, typer.Option(metavar="P", help="tiny, a model directory, a name on the hub, or openai:MODEL@URL.")
    ] = "tiny",
    answer_format: Annotated[
        str | None, typer.Option(metavar="A", help="Answer format [default: the policy's own].")
    ] = None,
    base: Base = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Leave out the policy's chat template; loads nothing.")
    ] = False,
) -> None:
    """Print the exact prompt that a model is sent with an image; standard output holds nothing else."""
    from segrl.policies.prompt_preview import shown_prompt

    shown = shown_prompt(policy, query, answer_format=answer_format, plain=plain, base=base)
    size = "at its own size" if shown.input_wh is None else f"resized to {shown.input_wh[0]}×{shown.input_wh[1]}"
    frame = f", coordinates in the frame {shown.frame}" if shown.frame else ""
    typer.echo(f"answer format {shown.answer_format}, image {size}{frame}", err=True)
    typer.echo(shown.text)


prompts.command()(exits_cleanly(show))
