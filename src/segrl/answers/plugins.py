"""Answer formats of one's own, by import path."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from inspect import isabstract
from typing import Any

from segrl.answers.base import AnswerFormat
from segrl.errors import SegrlError
from segrl.plugins import PREFIX, import_here
from segrl.text import first_line
from segrl.types import Answer


@lru_cache
def own_format(name: str) -> AnswerFormat:
    """The answer format called `python:PATH`: a subclass of AnswerFormat, made without arguments, or an object.

    Raises SegrlError for a path that leads nowhere or to something else; so does what it does later, if it
    fails or returns something else than it should.
    """
    path = name.removeprefix(PREFIX)
    try:
        found = import_here(path)
    except ImportError as error:
        raise SegrlError(f"answer format {name}: cannot import {path!r} ({error})") from error
    if isinstance(found, type) and issubclass(found, AnswerFormat):
        if isabstract(found):
            raise SegrlError(f"answer format {name}: {path!r} is abstract: it lacks prompt, render or read")
        found = found()
    if not isinstance(found, AnswerFormat):
        raise SegrlError(f"answer format {name}: {path!r} is no segrl.answers.AnswerFormat")
    for method, returned in (("prompt", str), ("render", str), ("parse", Answer)):
        setattr(found, method, _checked(name, getattr(found, method), returned))
    return found


def _checked(name: str, method: Callable[..., Any], returned: type) -> Callable[..., Any]:
    """`method`, with its failures and wrong returns as a SegrlError; a ValueError says that it cannot write this."""

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            result = method(*args, **kwargs)
        except (SegrlError, ValueError) as error:
            if returned is str:
                raise
            raise SegrlError(f"answer format {name}: {method.__name__}: {first_line(error)}") from error
        except Exception as error:
            raise SegrlError(
                f"answer format {name}: {method.__name__} failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(result, returned):
            said = f"{type(result).__name__}, not {returned.__name__}"
            raise SegrlError(f"answer format {name}: {method.__name__} returned {said}")
        return result

    return checked
