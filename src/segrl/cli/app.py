"""All commands in one application."""

from __future__ import annotations

from typing import Annotated

import typer

from segrl import __version__
from segrl.cli import checks, data, evaluate, plan, segment, serve, train
from segrl.cli.common import exits_cleanly

app = typer.Typer(
    help="Teach a multimodal language model to segment by pointing, with masks as the reward.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: loading rich takes longer than the rest of --help
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Teach a multimodal language model to segment by pointing, with masks as the reward."""


app.command()(exits_cleanly(train.quickstart))
app.command()(exits_cleanly(segment.segment))
app.command()(exits_cleanly(train.train))
app.command("eval")(exits_cleanly(evaluate.evaluate))
app.command()(exits_cleanly(evaluate.compare))
app.command()(exits_cleanly(evaluate.suite))
app.command()(exits_cleanly(evaluate.report))
app.command()(exits_cleanly(serve.demo))
app.command()(exits_cleanly(serve.serve))
app.command()(exits_cleanly(train.export))
app.command()(exits_cleanly(plan.plan))
app.command()(exits_cleanly(serve.serve_reward))
app.command()(exits_cleanly(checks.doctor))
app.add_typer(data.app, name="data")
app.add_typer(checks.prompts, name="prompts")
