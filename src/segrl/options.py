"""Options by name: refused where there are none of that name, and compared between two runs. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from segrl.errors import ModelError
from segrl.text import nearest


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
