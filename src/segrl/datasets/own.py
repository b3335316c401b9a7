"""A data set of one's own: any sequence of examples, named by import path.

dataset: {python: my_data.Cells, root: slides}     # in a recipe; my_data.py lies beside it
class Cells(Sequence[Example]): …                  # or a function that returns one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segrl.errors import DataError, SegrlError
from segrl.text import first_line
from segrl.types import Example


class Own(Sequence[Example]):
    """Somebody's examples, each checked when it is read. Raises DataError that names the data set and the place."""

    def __init__(self, name: str, examples: Any) -> None:
        if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
            raise DataError(
                f"the data set {name} is a {type(examples).__name__}: a sequence of segrl.types.Example is wanted"
            )
        self._name, self._examples = name, examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            example = self._examples[index]
        except SegrlError:
            raise
        except Exception as error:
            raise DataError(f"{self._name}: example {index}: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(example, Example):
            raise DataError(f"{self._name}: example {index} is a {type(example).__name__}, no segrl.types.Example")
        return example
