"""What commands share: how one ends when something is wrong, and options written as KEY=VALUE."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ParamSpec

import typer

from segrl.errors import DataError, SegrlError
from segrl.text import one_line

P = ParamSpec("P")

Base = Annotated[
    str | None, typer.Option(metavar="P", help="The model below an adapter, if it is not where the adapter says.")
]

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


def key_values(pairs: Iterable[str]) -> dict[str, Any]:
    """`["per=image"]` → `{"per": "image"}`, values read as YAML. Raises DataError for what is no KEY=VALUE."""
    import yaml

    from segrl.files import load_yaml

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise DataError(f"an option is written KEY=VALUE, not {pair!r}")
        try:
            options[key] = load_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            raise DataError(f"the value of {key} cannot be read: {value!r}") from error
    return options
