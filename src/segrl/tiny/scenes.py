"""Seeded scenes of coloured shapes with exact masks, queries and gold answers.

One scene holds two to four objects on textured ground; some overlap, and look-alikes (same colour,
other shape) may touch, so that a box alone is not enough. `TinyScenes[i]` depends on the seed and
on `i` only.

What a gold answer teaches, and what it leaves to the reward (`gold="loose"`): boxes are those of a
hurried annotator (a margin of 0 to 45% of the object on every side, the same for one whole answer give
or take 5%; `gold="uneven"` draws each side alone), points lie anywhere on the object, the negative
point lies anywhere off it. Queries of the kinds in `UNDERSTOOD` name the right objects;
for the other kinds the gold answer names objects at random, so that the policy can speak of them
without having understood. `gold="tight"` gives the right objects, tight boxes and useful points.

`TinyDrills` are drills in words alone: a list of objects is given, and whether one of them is meant by the query is
learned. A cold start on pictures learns to list and to point long before it learns that the query says which object is
meant: a few tokens in a text of sixty. Here that is the whole answer.

    user        Identify and segment the blue ring
    assistant   <think> 47,39 large blue star: no; 98,49 small blue ring         (given)
                : yes                                                            (learned)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from segrl.errors import DataError
from segrl.images import content_id
from segrl.segmenters.shapes import COLOURS, SHAPES, SIZES
from segrl.tiny import gold as golden
from segrl.tiny.shapes import (
    SIDE,
    Query,
    Thing,
    ask,
    check_kinds,
    draw_mask,
    ground,
    lay_mat,
    paint,
)
from segrl.types import Example

RADII = {"small": (11.0, 14.0), "large": (18.0, 23.0)}
GOLDS = ("loose", "uneven", "tight")
TILT = 0.35
"""How far an object leans from upright at most, radians."""
MIN_VISIBLE = 0.7
"""An object that others cover by more than this leaves is drawn elsewhere."""


class Layout:
    """Objects from left to right with their visible masks `(N, SIDE, SIDE)` bool; not painted yet."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._drawn = _arrange(rng)
        visible = _visible([mask for _, mask in self._drawn])
        order = sorted(range(len(self._drawn)), key=lambda i: self._drawn[i][0].centre_xy[0])
        self.things: list[Thing] = [self._drawn[i][0] for i in order]
        self.masks: np.ndarray = np.stack([visible[i] for i in order])

    def paint(self, rng: np.random.Generator) -> Image.Image:
        """The picture: ground, a mat under each object, then the objects in the order in which they were laid."""
        canvas = ground(rng)
        for thing, _ in self._drawn:
            lay_mat(canvas, thing, rng)
        for thing, mask in self._drawn:
            paint(canvas, thing, mask, rng)
        return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _arrange(rng: np.random.Generator) -> list[tuple[Thing, np.ndarray]]:
    """Two to four objects, the first drawn first, no two of the same colour and shape."""
    drawn: list[tuple[Thing, np.ndarray]] = []
    wanted = int(rng.choice([2, 3, 4], p=[0.35, 0.4, 0.25]))
    for _ in range(60):
        if len(drawn) == wanted:
            break
        thing = _random_thing(rng, drawn[-1][0] if drawn and rng.random() < 0.35 else None)
        if any(thing.name == other.name for other, _ in drawn):
            continue
        masks = [mask for _, mask in drawn] + [draw_mask(thing)]
        shares = [v.sum() / m.sum() for v, m in zip(_visible(masks), masks, strict=True)]
        apart = all(abs(thing.centre_xy[0] - other.centre_xy[0]) >= 6 for other, _ in drawn)
        if apart and min(shares) >= MIN_VISIBLE:
            drawn.append((thing, masks[-1]))
    return drawn


def _random_thing(rng: np.random.Generator, twin: Thing | None) -> Thing:
    """An object anywhere, or one of `twin`'s colour that touches it."""
    size = str(rng.choice(list(RADII)))
    radius = float(rng.uniform(*RADII[size]))
    low, high = radius + 2, SIDE - radius - 2
    x, y = rng.uniform(low, high, size=2)
    colour = str(rng.choice(list(COLOURS)))
    if twin is not None:
        turn, gap = rng.uniform(0, 2 * np.pi), 0.9 * (twin.radius + radius)
        x, y = np.clip(np.array(twin.centre_xy) + gap * np.array([np.cos(turn), np.sin(turn)]), low, high)
        colour = twin.colour
    return Thing(str(rng.choice(SHAPES)), colour, size, (float(x), float(y)), radius, float(rng.uniform(-TILT, TILT)))


def _visible(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each mask without what later ones cover."""
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    visible = []
    for mask in reversed(masks):
        visible.append(mask & ~covered)
        covered |= mask
    return visible[::-1]


def _layout_for(kind: str, rng: np.random.Generator) -> tuple[Layout, Query]:
    """Layouts are drawn until one allows a query of that kind."""
    while True:
        layout = Layout(rng)
        asked = ask(kind, layout.things, rng)
        if asked is not None:
            return layout, asked


class TinyScenes(Sequence[Example]):
    """`n` examples, made on access.

    kinds: names of `shapes.KINDS`, drawn in equal shares; gold: whose answers `meta` holds, see above. says: what
    their mask prompts hold, of `gold.SAYS`; words are for segmenters that take them.
    seed: scenes of different seeds differ; the held-out sets of segrl use seeds from 9,000 on.
    Raises DataError for a kind, a gold or a says that there is not, and for an n or a seed that is no whole number
    from 0.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        kinds: Sequence[str] = ("colour_shape",),
        gold: Literal["loose", "uneven", "tight"] = "loose",
        says: Literal["boxes", "words", "words_and_boxes"] = "boxes",
    ) -> None:
        check_kinds(kinds)
        for option, value in (("n", n), ("seed", seed)):
            if type(value) is not int or value < 0:
                raise DataError(f"{option} is a whole number from 0 on, not {value!r}")
        if gold not in GOLDS:
            raise DataError(f"gold is {', '.join(GOLDS[:-1])} or {GOLDS[-1]}, not {gold!r}")
        if says not in golden.SAYS:
            raise DataError(f"says is {', '.join(golden.SAYS[:-1])} or {golden.SAYS[-1]}, not {says!r}")
        self.n, self.seed, self.kinds, self.gold, self.says = n, seed, tuple(kinds), gold, says

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(self.n))

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices: examples are made one by one
        if not 0 <= index < self.n:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        kind = self.kinds[index % len(self.kinds)]
        layout, asked = _layout_for(kind, rng)
        return self._example(index, kind, layout, asked, rng)

    def _example(self, index: int, kind: str, layout: Layout, asked: Query, rng: np.random.Generator) -> Example:
        image = layout.paint(rng)
        return Example(
            id=f"tiny-{self.seed}-{index}",
            image_id=content_id(image),
            image=image,
            query=asked.text,
            targets=layout.masks[list(asked.targets)],
            tags={"kind": kind},
            meta=golden.answer(kind, layout.things, layout.masks, asked, self.gold, rng, self.says)
            | {"named": Named(layout.things, layout.masks)},
        )


class Named:
    """Reads the policy's own listing (`gold.reasoning`) for one scene.

    things, masks: the objects and their visible masks `(N, H, W)` bool, in the same order.
    """

    def __init__(self, things: Sequence[Thing], masks: np.ndarray) -> None:
        self.names, self.masks = [thing.name for thing in things], masks

    def __eq__(self, other: object) -> bool:
        """Whether both read the same scene."""
        return isinstance(other, Named) and self.names == other.names and np.array_equal(self.masks, other.masks)

    def __call__(self, reasoning: str) -> np.ndarray | None:
        """`(H, W)` bool: the objects marked `yes`, but for those that are not in the scene; None without a mark."""
        items = [item.replace(":", " ").split() for item in reasoning.partition(". ")[0].split(";")]
        meant = [" ".join(words[-3:-1]) for words in items if words[-1:] == ["yes"]]
        if not meant:
            return None
        shown = [name in meant for name in self.names]
        return np.asarray(self.masks[shown].any(axis=0))


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
        items = golden.listing(things, asked.targets).split(";")[: int(rng.integers(len(things))) + 1]
        given, mark = ";".join(items).rsplit(":", 1)
        return Example(
            id=f"tiny-drill-{self.seed}-{index}",
            image_id="blank",
            image=Image.new("RGB", (SIDE, SIDE)),
            query=asked.text,
            targets=np.zeros((0, SIDE, SIDE), dtype=bool),
            meta={"text_only": True, "answer_begins": f"<think>{given}", "completion_text": f":{mark}"},
        )


def _asked(kind: str, rng: np.random.Generator) -> tuple[list[Thing], Query]:
    """Lists of two to six are drawn until one allows a query of that kind."""
    while True:
        things = _things(int(rng.integers(2, 7)), rng)
        asked = ask(kind, things, rng)
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
