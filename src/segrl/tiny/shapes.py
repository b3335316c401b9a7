"""The tiny world: its words and size, how an object is drawn (an exact mask, pixels with texture and shading), and
what can be asked about a scene. Objects are numbered from left to right."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segrl.errors import RecipeError
from segrl.segmenters.shapes import COLOURS, SHAPES  # the segmenter that knows this world by words

SIDE = 112
"""Width and height of a scene, and of the square that every image is squashed to for the tiny policy."""

MAT = (1.3, 1.9)
"""How far the patch of ground under an object reaches, in radii of the object."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene: centre and outer radius in pixels, rotation in radians."""

    shape: str
    colour: str
    size: str
    centre_xy: tuple[float, float]
    radius: float
    angle: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def outline(thing: Thing) -> np.ndarray:
    """`(K, 2)` float64 corners of the contour, pixels; squares, triangles and stars stand upright at `angle` 0."""
    if thing.shape in ("circle", "ring"):
        radii, first = np.ones(28), 0.0
    elif thing.shape == "star":
        radii, first = np.tile([1.2, 0.45], 5), -math.pi / 2
    elif thing.shape == "square":
        radii, first = np.full(4, 1.15), math.pi / 4
    else:
        radii, first = np.full(3, 1.2), -math.pi / 2
    turns = first + thing.angle + np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1) * (radii * thing.radius)[:, None] + thing.centre_xy


def draw_mask(thing: Thing) -> np.ndarray:
    """`(SIDE, SIDE)` bool: the pixels of the object, hole of a ring left out."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.round(outline(thing)).astype(np.int32)], 1)
    if thing.shape == "ring":
        cx, cy = thing.centre_xy
        cv2.circle(mask, (round(cx), round(cy)), round(thing.radius * 0.5), 0, -1)
    return mask.astype(bool)


@functools.cache
def _grain() -> np.ndarray:
    """`(2·SIDE, 2·SIDE)` float32 white noise, always the same; pictures cut windows out of it."""
    return np.random.default_rng(0).standard_normal((2 * SIDE, 2 * SIDE), dtype=np.float32)


def grain(rng: np.random.Generator) -> np.ndarray:
    """`(SIDE, SIDE)` float32 white noise of deviation 1."""
    x, y = rng.integers(SIDE, size=2)
    return _grain()[y : y + SIDE, x : x + SIDE]


def blotches(rng: np.random.Generator, cells: int) -> np.ndarray:
    """`(SIDE, SIDE)` float32 smooth noise, mean 0, deviation about 1, with `cells` bumps a side."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def ground(rng: np.random.Generator) -> np.ndarray:
    """`(SIDE, SIDE, 3)` float32 background in 0–255: a dull colour, blotches and grain."""
    base = (rng.uniform(85, 165) + rng.uniform(-18, 18, size=3)).astype(np.float32)
    light = 12 * blotches(rng, 6) + 7 * grain(rng)
    return light[..., None] + base


def lay_mat(canvas: np.ndarray, thing: Thing, rng: np.random.Generator) -> None:
    """Draws an uneven patch of other ground under an object, wider than the object.

    A box that holds the whole patch makes a segmenter take it along; a tight box does not.
    """
    (cx, cy), reach = thing.centre_xy, MAT[1] * thing.radius * 1.25
    x1, y1 = max(int(cx - reach), 0), max(int(cy - reach), 0)
    ys, xs = np.ogrid[y1 : int(cy + reach) + 1, x1 : int(cx + reach) + 1]
    window = canvas[y1 : int(cy + reach) + 1, x1 : int(cx + reach) + 1]
    edge = thing.radius * (rng.uniform(*MAT) - 0.12 * blotches(rng, 9)[: window.shape[0], : window.shape[1]])
    shift = rng.choice([-1, 1]) * rng.uniform(28, 55) + rng.uniform(-14, 14, size=3)
    away = np.sqrt(np.square(xs - cx, dtype=np.float32) + np.square(ys - cy, dtype=np.float32))
    window[away[: window.shape[0], : window.shape[1]] < edge] += shift.astype(np.float32)


def paint(canvas: np.ndarray, thing: Thing, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Draws the object into `canvas` `(SIDE, SIDE, 3)` float32: its colour, stripes, a light side, grain."""
    ys, xs = np.nonzero(mask)
    turn, phase = rng.uniform(0, 2 * math.pi, size=2)
    along = np.cos(turn) * (xs - thing.centre_xy[0]) + np.sin(turn) * (ys - thing.centre_xy[1])
    stripes = rng.uniform(0, 16) * np.sin(along * rng.uniform(0.5, 1.2) + phase)
    shading = rng.uniform(8, 26) * along / thing.radius
    tint = np.array(COLOURS[thing.colour]) + rng.uniform(-18, 18, size=3)
    canvas[ys, xs] = tint + (stripes + shading + 6 * grain(rng)[ys, xs])[:, None]


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
