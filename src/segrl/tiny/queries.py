"""What can be asked about a scene. Objects are numbered from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segrl.errors import RecipeError
from segrl.tiny.shapes import COLOURS, SHAPES, Thing


@dataclass(frozen=True)
class Query:
    """The words and the indices of the objects that they mean (none, one or several)."""

    text: str
    targets: tuple[int, ...]


Ask = Callable[[Sequence[Thing], np.random.Generator], Query | None]


def colour_shape(things: Sequence[Thing], rng: np.random.Generator) -> Query:
    """One object by colour and shape."""
    i = int(rng.integers(len(things)))
    return Query(f"the {things[i].name}", (i,))


def pair(things: Sequence[Thing], rng: np.random.Generator) -> Query:
    """Two objects, each by colour and shape."""
    i, j = (int(k) for k in rng.permutation(len(things))[:2])
    return Query(f"the {things[i].name} and the {things[j].name}", tuple(sorted((i, j))))


def size(things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """The only large or the only small object."""
    word = str(rng.choice(["small", "large"]))
    hits = [i for i, thing in enumerate(things) if thing.size == word]
    superlative = {"small": "smallest", "large": "largest"}[word]
    return Query(f"the {superlative} object", (hits[0],)) if len(hits) == 1 else None


def position(things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """The object furthest to one side of the image."""
    word, axis, sign = [("leftmost", 0, 1), ("rightmost", 0, -1), ("highest", 1, 1), ("lowest", 1, -1)][rng.integers(4)]
    along = [sign * thing.centre_xy[axis] for thing in things]
    first, second = np.argsort(along)[:2]
    return Query(f"the {word} object", (int(first),)) if along[second] - along[first] >= 6 else None


def relation(things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """The next object to the left or to the right of a named one."""
    word, step = [("left", -1), ("right", 1)][rng.integers(2)]
    anchor = int(rng.integers(len(things)))
    target = anchor + step
    text = f"the object just {word} of the {things[anchor].name}"
    return Query(text, (target,)) if 0 <= target < len(things) else None


def several(things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """All objects of one colour, at least two."""
    colour = str(rng.choice(list(COLOURS)))
    hits = tuple(i for i, thing in enumerate(things) if thing.colour == colour)
    return Query(f"all {colour} objects", hits) if len(hits) >= 2 else None


def none(things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """A colour and shape that the scene does not hold."""
    name = f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
    return None if any(thing.name == name for thing in things) else Query(f"the {name}", ())


def count(things: Sequence[Thing], rng: np.random.Generator) -> Query:
    """The second skill: how many objects there are. The answer is a number, not a mask."""
    return Query("how many objects are there", tuple(range(len(things))))


KINDS: dict[str, Ask] = {
    "colour_shape": colour_shape,
    "pair": pair,
    "size": size,
    "position": position,
    "relation": relation,
    "several": several,
    "none": none,
    "count": count,
}
UNDERSTOOD = ("colour_shape", "pair", "count")
"""Kinds whose gold answers are right in the cold start; the others name objects at random."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises RecipeError for a kind that does not exist or an empty list."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise RecipeError(f"kinds of query: choose from {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}")


def ask(kind: str, things: Sequence[Thing], rng: np.random.Generator) -> Query | None:
    """A query of that kind about the scene, or None where the scene does not allow one."""
    return KINDS[kind](things, rng) if len(things) >= 2 else None
