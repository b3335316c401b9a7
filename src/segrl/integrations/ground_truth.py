"""What a foreign trainer says of the ground truth, a text, as an Example.

Either the name of an example of the recipe's own data set, as `RecipeReward.rows` gives it

    17:COD10K-CAM-1-Aquatic-1-BatFish-2

(its place and, so that another data set or sample is noticed, its id), or a line of segrl's JSON Lines
layout (`segrl.datasets.json_lines`), whose paths are relative to a root that they may not leave:

    {"image": "photos/a.jpg", "query": "the dog", "mask": {"size": [480, 640], "counts": "PPYo1…"}}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from segrl.datasets.drawing import mask_file
from segrl.datasets.json_lines import parse_line, read_line
from segrl.errors import DataError
from segrl.types import Example

KEPT = 64
"""Examples kept in memory: a group's completions ask for one, and the next update for the same again."""


class Truths:
    """Texts → examples. load_examples: the recipe's data set, asked for when first named. root: where paths begin."""

    def __init__(self, load_examples: Callable[[], Sequence[Example]], root: Path) -> None:
        self._load_examples, self._root = load_examples, root.resolve()
        self._examples: Sequence[Example] | None = None
        self.example = lru_cache(maxsize=KEPT)(self._read)

    @property
    def examples(self) -> Sequence[Example]:
        """The recipe's data set."""
        if self._examples is None:
            self._examples = self._load_examples()
        return self._examples

    def name(self, index: int) -> str:
        """The text that stands for the example at `index`."""
        return f"{index}:{self.examples[index].id}"

    def _read(self, text: str) -> Example:
        """Raises DataError for a text that is neither form, and for an example that is not there."""
        return self._line(text) if text.lstrip().startswith("{") else self._named(text)

    def _named(self, text: str) -> Example:
        place, colon, wanted = text.partition(":")
        if not colon or not place.isascii() or not place.isdigit():
            raise DataError(f"a ground truth is PLACE:ID or a JSON object, not {_brief(text)}")
        if int(place) >= len(self.examples):
            raise DataError(f"ground truth {_brief(text)}: the recipe's data set has {len(self.examples)} examples")
        example = self.examples[int(place)]
        if example.id != wanted:
            raise DataError(f"ground truth {_brief(text)}: at that place the recipe's data set has {example.id!r}")
        return example

    def _line(self, text: str) -> Example:
        line = parse_line(text, f"ground truth {_brief(text)}", 0, self._root)
        masks = [mask_file(mask, line.where) for mask in (*line.masks, line.ignore)]
        for path in [line.image, *(self._root / mask for mask in masks if mask is not None)]:
            if not _resolved(path, line.where).is_relative_to(self._root):
                raise DataError(f"{line.where}: {path} is outside {self._root}")
        return read_line(line, self._root)


def _resolved(path: Path, where: str) -> Path:
    try:
        return path.resolve()
    except (ValueError, OSError) as error:  # a NUL, or a name that is too long
        raise DataError(f"{where}: {str(path)!r:.80} is no path: {error}") from error


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
