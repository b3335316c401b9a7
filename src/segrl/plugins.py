"""Code of one's own, named by import path: `my_terms.short` is `short` in the file my_terms.py.

A recipe's own code is looked for beside the recipe, in the working directory, and among what is installed.
What a model directory names is never looked for there, nor imported without being asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from segrl.text import first_line

PREFIX = "python:"
"""Begins a name that is an import path: `python:my_package.MyFormat`."""


def import_path(path: str) -> Any:
    """What `package.module.attribute` names. Raises ImportError, whatever goes wrong while it is imported."""
    module, _, attribute = path.removeprefix(PREFIX).rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ImportError(f"{type(error).__name__}: {first_line(error)}") from error


def import_here(path: str) -> Any:
    """As `import_path`, for what a call or a command names: looked for in the working directory too."""
    try:
        return import_path(path)
    except ImportError:
        make_importable(path.removeprefix(PREFIX), [Path.cwd()])
        return import_path(path)


def named_in(values: Any) -> Iterator[str]:
    """Every import path in plain values: after a key `python`, and in texts that begin with `python:`.

    >>> list(named_in({"rewards": {"mine": {"weight": 1, "python": "my_terms.short"}}}))
    ['my_terms.short']
    """
    if isinstance(values, str) and values.startswith(PREFIX):
        yield values.removeprefix(PREFIX)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            if key == "python" and isinstance(value, str):
                yield value
            else:
                yield from named_in(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from named_in(value)


def make_importable(path: str, places: Iterable[Path]) -> None:
    """Puts the first of the directories on `sys.path` that holds the module or package of an import path.

    Nothing happens where none does. A module of the same name from elsewhere is imported again.
    """
    top = path.partition(".")[0]
    for place in (one.resolve() for one in places):
        file = next((f for f in (place / f"{top}.py", place / top / "__init__.py") if f.is_file()), None)
        if file is None:
            continue
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
        loaded = getattr(sys.modules.get(top), "__file__", None)
        if loaded is not None and Path(loaded).resolve() != file:
            for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
                del sys.modules[name]
        importlib.invalidate_caches()
        return
