"""What commands share: how one ends when something is wrong, options as KEY=VALUE, how far an evaluation is."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from segrl.errors import DataError, SegrlError
from segrl.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from segrl.evaluation import EvalRecord, OnWindow

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


def watch_evaluation(console: Console, name: str) -> OnWindow:
    """Shows how far an evaluation is: one line that changes on a terminal, a line now and then elsewhere."""
    from segrl.jobs.progress import NowAndThen

    begun, now_and_then = time.monotonic(), NowAndThen()
    done, overlap = 0, 0.0

    def watch(records: Sequence[EvalRecord], finished: int, total: int) -> None:
        nonlocal done, overlap
        now = time.monotonic()
        done, overlap = done + len(records), overlap + sum(record.iou for record in records)
        is_last = finished == total
        left = f" in {now - begun:.0f} s" if is_last else f", {(now - begun) / done * (total - finished):.0f} s left"
        line = f"{name}: {finished}/{total}, gIoU {overlap / done:.3f}{left}"
        if console.is_terminal:
            console.print(f"{line:<79}", end="\n" if is_last else "\r", highlight=False)
        elif now_and_then.is_due(is_last=is_last):
            console.print(line, highlight=False, soft_wrap=True)

    return watch
