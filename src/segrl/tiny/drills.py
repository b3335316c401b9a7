"""Drills in words alone: a query and a list of objects are given, and only which of them is meant is learned.

    user        Identify and segment the blue ring
    assistant   <think>1 (47,39) large blue star, 2 (98,49) small blue ring            (given)
                . it is 2</think>                                                      (learned)

A cold start on pictures learns to list and to point long before it learns that the query says which
object is meant: one number in a text of fifty tokens. Here that number is nearly the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from segrl.errors import RecipeError
from segrl.tiny import gold, queries
from segrl.tiny.shapes import Thing
from segrl.tiny.words import COLOURS, SHAPES, SIDE, SIZES
from segrl.types import Example

KINDS = ("colour_shape", "pair")
"""Kinds of query that can be asked of any list of names."""


class TinyDrills(Sequence[Example]):
    """`n` drills for supervised learning, made on access; each depends on `seed` and its index only.

    kinds: of `KINDS`; raises RecipeError for others. Their images are blank and not shown
    (`meta["text_only"]`); they have no targets.
    """

    def __init__(self, n: int, seed: int, kinds: Sequence[str] = ("colour_shape",)) -> None:
        if not kinds or not set(kinds) <= set(KINDS):
            raise RecipeError(f"drills speak of colour and shape alone: choose kinds from {', '.join(KINDS)}")
        self.n, self.seed, self.kinds = n, seed, tuple(kinds)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(self.n))

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices: examples are made one by one
        if not 0 <= index < self.n:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        things = _things(rng)
        asked = queries.ask(self.kinds[index % len(self.kinds)], things, rng)
        assert asked is not None  # these kinds can be asked of any two objects
        return Example(
            id=f"tiny-drill-{self.seed}-{index}",
            image_id="blank",
            image=Image.new("RGB", (SIDE, SIDE)),
            query=asked.text,
            targets=np.zeros((0, SIDE, SIDE), dtype=bool),
            meta={
                "text_only": True,
                "answer_begins": f"<think>{gold.listing(things)}",
                "completion_text": f"{gold.conclusion(asked.targets)}</think>",
            },
        )


def _things(rng: np.random.Generator) -> list[Thing]:
    """Two to four objects, no two of the same name, often several of one colour."""
    wanted, things = int(rng.integers(2, 5)), list[Thing]()
    while len(things) < wanted:
        alike = bool(things) and rng.random() < 0.35
        colour = things[-1].colour if alike else str(rng.choice(list(COLOURS)))
        x, y = rng.uniform(10, SIDE - 10, size=2)
        thing = Thing(str(rng.choice(SHAPES)), colour, str(rng.choice(SIZES)), (float(x), float(y)), 10.0, 0.0)
        if all(thing.name != other.name for other in things):
            things.append(thing)
    return sorted(things, key=lambda thing: thing.centre_xy[0])
