"""Small helpers for messages: the nearest name, unknown options, what differs, an error's first line, a duration."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from segrl.errors import ModelError


def most_alike(name: object, valid: Iterable[str], n: int, among: float = 0.0) -> list[str]:
    """At most `n` names of `valid`, those first that are spelled most like `name`.

    among: how alike they must be, from 0 (the best there are) to 1 (equal), as difflib's `cutoff`.
    """
    return difflib.get_close_matches(str(name), list(valid), n=n, cutoff=among)


def nearest(name: object, valid: Iterable[str], among: float = 0.0) -> str | None:
    """The first of `most_alike`; None where there is none.

    >>> nearest("learning_rat", ["max_steps", "learning_rate"])
    'learning_rate'
    """
    return next(iter(most_alike(name, valid, 1, among)), None)


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """`did you mean 'learning_rate'?`, or `there are none` where nothing is valid.

    >>> did_you_mean("iuo", ["iou", "s_measure"])
    "did you mean 'iou'?"
    """
    near = nearest(name, valid)
    return "there are none" if near is None else f"did you mean {near!r}?"


def first_line(error: object) -> str:
    """The first line of a text or of an error's message; the error's type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(text: object) -> str:
    """A text on one line, with single spaces; the type of an error that says nothing.

    >>> one_line("expected\\n  a number")
    'expected a number'
    """
    return " ".join(str(text).split()) or type(text).__name__


def duration(seconds: float) -> str:
    """Seconds in words, rounded as an estimate is.

    >>> [duration(s) for s in (0, 0.4, 42, 150, 8000)]
    ['0 s', '1 s', '42 s', '2.5 min', '2 h 13 min']
    """
    if seconds < 90:
        return f"{round(seconds) or int(seconds > 0)} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"


def check_options(what: str, builder: Callable[..., Any], options: Iterable[str]) -> None:
    """Raises ModelError, naming the nearest, for an option of `what` that `builder` has not among its defaults."""
    known = [name for name, one in inspect.signature(builder).parameters.items() if one.default is not one.empty]
    for option in options:
        if option not in known:
            near = nearest(option, known, among=0.6)
            hint = f"did you mean {near}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise ModelError(f"{what} has no option {option}: {hint}")


def differences(theirs: Any, ours: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value that differs between two nested mappings: (its key with dots, theirs, ours); None where one lacks it.

    >>> list(differences({"seed": 0, "trainer": {"max_steps": 5}}, {"seed": 0, "trainer": {"max_steps": 9}}))
    [('trainer.max_steps', 5, 9)]
    """
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else str(key))
    elif theirs != ours:
        yield name, theirs, ours
