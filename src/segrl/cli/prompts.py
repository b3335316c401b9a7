"""segrl prompts: what a model is sent."""

from __future__ import annotations

from typing import Annotated

import typer

from segrl.cli.errors import exits_cleanly

app = typer.Typer(help="What a model is sent.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _prompts() -> None:
    """What a model is sent."""


def show(
    query: Annotated[str, typer.Option("--query", "-q", metavar="TEXT", help="The user's words.")] = "the cup",
    policy: Annotated[str, typer.Option(metavar="P", help="tiny, a directory, or a model's name on the hub.")] = "tiny",
    answer_format: Annotated[str | None, typer.Option(metavar="A", help="Default: the policy's own.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Without the policy's chat template; loads nothing.")] = False,
) -> None:
    """Print the exact text that a model is sent about an image: standard output holds that text and nothing else."""
    from segrl.policies.prompt_preview import shown_prompt

    shown = shown_prompt(policy, query, answer_format=answer_format, plain=plain)
    size = "at its own size" if shown.input_wh is None else f"squashed to {shown.input_wh[0]}×{shown.input_wh[1]}"
    frame = f", numbers in the frame {shown.frame}" if shown.frame else ""
    typer.echo(f"answer format {shown.answer_format}, image {size}{frame}", err=True)
    typer.echo(shown.text)


app.command()(exits_cleanly(show))
