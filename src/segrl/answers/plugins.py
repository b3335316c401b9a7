"""Answer formats and reward terms of one's own, by import path."""

from __future__ import annotations

import importlib
from functools import lru_cache
from inspect import isabstract
from typing import Any

from segrl.answers.base import AnswerFormat
from segrl.errors import SegrlError

PREFIX = "python:"
"""Begins the name of an answer format of one's own: `python:my_package.MyFormat`."""


def import_path(path: str) -> Any:
    """What `package.module.attribute` names. Raises ImportError, AttributeError or ValueError."""
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@lru_cache
def own_format(name: str) -> AnswerFormat:
    """The answer format called `python:PATH`: a subclass of AnswerFormat, made without arguments, or an object.

    Raises SegrlError for a path that leads nowhere or to something else.
    """
    path = name.removeprefix(PREFIX)
    try:
        found = import_path(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise SegrlError(f"answer format {name}: cannot import {path!r} ({error})") from error
    if isinstance(found, type) and issubclass(found, AnswerFormat):
        if isabstract(found):
            raise SegrlError(f"answer format {name}: {path!r} is abstract: it lacks prompt, render or read")
        found = found()
    if not isinstance(found, AnswerFormat):
        raise SegrlError(f"answer format {name}: {path!r} is no segrl.answers.AnswerFormat")
    return found
