"""Several data sets as one, one after the other: what a stage trains on that mixes them.

    {name: joined, root: data, sets: [{name: cod10k, split: train}, {name: camo, split: train}]}

Each set is an entry as a recipe's `dataset` has it; `root` goes to those that name none. An
example's id gets the set's place and name before it (`0-cod10k/…`), so that no two are equal. Nothing
is filtered, and the order is the sets' own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from segrl.datasets.rows import Examples, pass_on
from segrl.errors import DataError
from segrl.images import PictureOptions
from segrl.types import Example


class Joined(Examples):
    """The examples of all `sets`. Raises DataError for no sets, an entry without a name, and as each set does."""

    def __init__(self, sets: Sequence[Mapping[str, Any]], root: Path | str | None = None) -> None:
        from segrl import datasets

        if not isinstance(sets, list) or not sets or not all(isinstance(s, dict) and "name" in s for s in sets):
            raise DataError("joined needs sets: a list of entries, each with a name")
        shared = {} if root is None else {"root": root}
        self._sets = [datasets.load(**{**shared, **entry}) for entry in sets]
        self._names = [f"{i}-{entry['name']}" for i, entry in enumerate(sets)]
        self._ends = list(accumulate(map(len, self._sets)))

    def __len__(self) -> int:
        return self._ends[-1]

    def read_with(self, pictures: PictureOptions) -> None:
        """See Examples; it holds for all sets."""
        pass_on(pictures, *self._sets)

    def example(self, place: int) -> Example:
        """See Examples; each set reads its own."""
        which = bisect_right(self._ends, place)
        example = self._sets[which][place - self._ends[which] + len(self._sets[which])]
        return replace(example, id=f"{self._names[which]}/{example.id}")
