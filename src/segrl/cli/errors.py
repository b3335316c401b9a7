"""How a command ends when something is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

from segrl.errors import SegrlError
from segrl.text import one_line

P = ParamSpec("P")

WRONG_USE = 2
INTERRUPTED = 130


def exits_cleanly(command: Callable[P, None]) -> Callable[P, None]:
    """`command`, ending with one line on standard error and status 2 for a SegrlError, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SegrlError as error:
            typer.echo(f"segrl: {one_line(error)}", err=True)
            raise typer.Exit(WRONG_USE) from error
        except KeyboardInterrupt as error:
            typer.echo("segrl: stopped; the same command goes on from what is saved", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return wrapped
