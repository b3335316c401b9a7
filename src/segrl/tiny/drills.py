"""Drills in words alone: a list of objects is given, and whether one of them is meant by the query is learned.

    user        Identify and segment the blue ring
    assistant   <think> 47,39 large blue star: no; 98,49 small blue ring         (given)
                : yes                                                            (learned)

A cold start on pictures learns to list and to point long before it learns that the query says which
object is meant: a few tokens in a text of sixty. Here that is the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from segrl.tiny import gold, queries
from segrl.tiny.shapes import COLOURS, SHAPES, SIDE, SIZES, Thing
from segrl.types import Example

KINDS = ("colour_shape", "pair", "none")
"""Kinds of query that can be asked of any list of names."""


class TinyDrills(Sequence[Example]):
    """`n` drills for supervised learning, made on access; each depends on `seed` and its index only.

    The kinds of `KINDS` take turns. The images are blank and not shown (`meta["text_only"]`); there are
    no targets.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(self.n))

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices: examples are made one by one
        if not 0 <= index < self.n:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        things, asked = _asked(KINDS[index % len(KINDS)], rng)
        items = gold.listing(things, asked.targets).split(";")[: int(rng.integers(len(things))) + 1]
        given, mark = ";".join(items).rsplit(":", 1)
        return Example(
            id=f"tiny-drill-{self.seed}-{index}",
            image_id="blank",
            image=Image.new("RGB", (SIDE, SIDE)),
            query=asked.text,
            targets=np.zeros((0, SIDE, SIDE), dtype=bool),
            meta={"text_only": True, "answer_begins": f"<think>{given}", "completion_text": f":{mark}"},
        )


def _asked(kind: str, rng: np.random.Generator) -> tuple[list[Thing], queries.Query]:
    """Lists of two to six are drawn until one allows a query of that kind."""
    while True:
        things = _things(int(rng.integers(2, 7)), rng)
        asked = queries.ask(kind, things, rng)
        if asked is not None:
            return things, asked


def _things(n: int, rng: np.random.Generator) -> list[Thing]:
    """`n` objects from left to right, no two of the same name, often several of one colour."""
    things: list[Thing] = []
    while len(things) < n:
        alike = bool(things) and rng.random() < 0.3
        colour = things[-1].colour if alike else str(rng.choice(list(COLOURS)))
        x, y = rng.integers(10, SIDE - 10, size=2)
        thing = Thing(str(rng.choice(SHAPES)), colour, str(rng.choice(SIZES)), (float(x), float(y)), 10.0, 0.0)
        if all(thing.name != other.name for other in things):
            things.append(thing)
    return sorted(things, key=lambda thing: thing.centre_xy[0])
