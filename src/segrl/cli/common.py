"""What commands share: exit status, KEY=VALUE options, the progress of an evaluation, and decoding options."""

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
    str | None,
    typer.Option(metavar="P", help="Base model of an adapter, if it is not where the adapter's configuration says."),
]
PolicyName = Annotated[
    str,
    typer.Option(
        metavar="P", help="tiny-photos, tiny-scenes, words, a directory, a name on the hub, openai:MODEL@URL."
    ),
]
SegmenterName = Annotated[
    str | None, typer.Option(metavar="S", help="grabcut, tiny or a SAM model [default: depends on the policy].")
]
AnswerFormat = Annotated[
    str | None, typer.Option(metavar="A", help="Format of the policy's answers [default: the policy's own].")
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Maximum number of tokens per answer [default: depends on the policy]."),
]
Device = Annotated[
    str | None, typer.Option(metavar="D", help="cpu, cuda, cuda:1, … [default: the first GPU, or the CPU].")
]

WRONG_USE = 2
INTERRUPTED = 130


Samples = Annotated[
    int, typer.Option(min=1, metavar="N", help="Completions sampled for each query; above 1 they vote by object.")
]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="Sampling temperature; 0 is greedy [default: 1 for a vote, else 0].")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed for sampling.")]
Turns = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Maximum number of answers per query; after each the policy is shown its mask."
    ),
]
SecondLook = Annotated[bool, typer.Option("--second-look", help="Ask again about a crop around what was found.")]
VoteRules = Annotated[
    list[str] | None,
    typer.Option(
        "--vote",
        metavar="KEY=VALUE",
        help="Rule of the vote: same_object=0.85 (IoU), least_votes=0.2, nothing=0.5 (shares), mask=best|consensus.",
    ),
]


def decoding_values(
    samples: int, temperature: float | None, seed: int, second_look: bool, vote: list[str] | None, turns: int = 1
) -> dict[str, Any]:
    """The options that differ from greedy decoding, as `segrl.Decoding.of` takes them."""
    given = {"samples": samples, "temperature": temperature, "seed": seed, "second_look": second_look, "turns": turns}
    plain = {"samples": 1, "temperature": None, "seed": 0, "second_look": False, "turns": 1}
    values: dict[str, Any] = {name: value for name, value in given.items() if value != plain[name]}
    return values | ({"vote": key_values(vote)} if vote else {})


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
            typer.echo("segrl: stopped; the same command resumes from what is saved", err=True)
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
