"""Gold answers for a scene: the annotator's (loose) and the ideal ones (tight)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from segrl.answers import own_points
from segrl.masks import mask_to_box
from segrl.tiny.shapes import SIDE, UNDERSTOOD, Query, Thing
from segrl.types import ORIGINAL, Box, MaskPrompt, Point

SAYS = ("boxes", "words", "words_and_boxes")
"""What a gold answer's mask prompts hold: boxes and points, the objects' names alone, or both."""

LOOSE = (0.0, 0.45)
"""How far an annotator's box reaches beyond the object on each side, as a share of the side: one for an answer."""
JITTER = 0.05
"""How much the four sides of such a box differ from that, either way."""
UNEVEN = (-0.10, 0.45)
"""The same where each side of each box is drawn on its own (`gold="uneven"`)."""


def answer(
    kind: str,
    things: Sequence[Thing],
    masks: np.ndarray,
    query: Query,
    gold: str,
    rng: np.random.Generator,
    says: str = "boxes",
) -> dict[str, Any]:
    """`meta` of an example: `prompts` and `reasoning`, or the raw texts of the counting skill. says: of `SAYS`."""
    if kind == "count":
        return {"prompt_text": f"{query.text}?", "completion_text": count_text(things), "count": len(things)}
    if gold == "tight":
        tight = own_points([tight_prompt(masks, i) for i in query.targets])
        return {"prompts": _said(tight, things, query.targets, says), "reasoning": reasoning(things, query.targets)}
    named = query.targets if kind in UNDERSTOOD else _guess(kind, len(things), rng)
    margin = None if gold == "uneven" else float(rng.uniform(*LOOSE))
    prompts = tuple(loose_prompt(masks[i], margin, rng) for i in named)
    return {"prompts": _said(prompts, things, named, says), "reasoning": reasoning(things, named)}


def _said(
    prompts: Sequence[MaskPrompt], things: Sequence[Thing], named: Sequence[int], says: str
) -> tuple[MaskPrompt, ...]:
    """The prompts as they are, or with the objects' names, or the names alone."""
    if says == "boxes":
        return tuple(prompts)
    names = [things[i].name for i in named]
    if says == "words":
        return tuple(MaskPrompt(frame=ORIGINAL, phrase=name) for name in names)
    return tuple(replace(prompt, phrase=name) for prompt, name in zip(prompts, names, strict=True))


def _guess(kind: str, n: int, rng: np.random.Generator) -> tuple[int, ...]:
    """What an answer names that has not understood: an object, two where several are asked for, or nothing."""
    if kind == "none" and rng.random() < 0.25:
        return ()
    count = 2 if kind == "several" and rng.random() < 0.5 else 1
    return tuple(sorted(int(i) for i in rng.permutation(n)[:count]))


def reasoning(things: Sequence[Thing], named: Sequence[int]) -> str:
    """First all that is seen, from left to right, then where what is meant is."""
    found = " and ".join(_place(things[i]) for i in named)
    return listing(things, named) + (f". it is {found}" if found else ". none match")


def listing(things: Sequence[Thing], named: Sequence[int]) -> str:
    """Each object's place, size, colour and shape, and whether it is meant."""
    return ";".join(
        f" {_place(thing)} {thing.size} {thing.name}: {'yes' if i in named else 'no'}" for i, thing in enumerate(things)
    )


def _place(thing: Thing) -> str:
    """The centre in pixels of the scene."""
    return f"{round(thing.centre_xy[0])},{round(thing.centre_xy[1])}"


def count_text(things: Sequence[Thing]) -> str:
    """The completion of the counting skill."""
    seen = ";".join(f" {_place(thing)} {thing.size} {thing.name}" for thing in things)
    return f"<think>{seen}</think> <answer>{len(things)}</answer>"


def loose_prompt(mask: np.ndarray, margin: float | None, rng: np.random.Generator) -> MaskPrompt:
    """A hurried annotator's prompt: a box too wide, two points on the object, one anywhere off it.

    Where several objects are meant, an answer's reader may give that one to another of them, as with any annotator.

    margin: of `LOOSE`; None draws one for each side, of `UNEVEN`.
    """
    x1, y1, x2, y2 = mask_to_box(mask) or (0.0, 0.0, float(SIDE), float(SIDE))
    shares = rng.uniform(*UNEVEN, size=4) if margin is None else margin + rng.uniform(-JITTER, JITTER, size=4)
    left, top, right, bottom = (shares * [x2 - x1, y2 - y1, x2 - x1, y2 - y1]).tolist()
    box: Box = (
        float(max(x1 - left, 0)),
        float(max(y1 - top, 0)),
        float(min(x2 + right, SIDE)),
        float(min(y2 + bottom, SIDE)),
    )
    points = (*_somewhere(mask, 2, rng), *_somewhere(~mask, 1, rng))
    return MaskPrompt(box, points, (1, 1, 0), ORIGINAL)


def _somewhere(mask: np.ndarray, n: int, rng: np.random.Generator) -> list[Point]:
    """`n` pixels drawn at random where `mask` is True."""
    ys, xs = np.nonzero(mask)
    picks = rng.integers(len(xs), size=n)
    return [(float(xs[i]), float(ys[i])) for i in picks]


def tight_prompt(masks: np.ndarray, index: int) -> MaskPrompt:
    """The ideal prompt: the object's own box, its two deepest points, and the deepest point of what else is in the box.

    "What else" is another object where one reaches into the box, else the ground.
    """
    mask = masks[index]
    box = mask_to_box(mask) or (0.0, 0.0, float(SIDE), float(SIDE))
    x1, y1, x2, y2 = (int(v) for v in box)
    inside = np.zeros_like(mask)
    inside[y1:y2, x1:x2] = True
    others = np.delete(masks, index, axis=0).any(axis=0) & inside
    wrong = others if others.sum() >= 12 else ~mask & inside
    first = deepest(mask)
    ys, xs = np.indices(mask.shape)
    rest = mask & (np.hypot(xs - first[0], ys - first[1]) >= 5)
    second = deepest(rest) if rest.any() else first
    negative = [deepest(wrong)] if wrong.any() else []
    return MaskPrompt(box, (first, second, *negative), (1, 1, *[0] * len(negative)), ORIGINAL)


def deepest(mask: np.ndarray) -> Point:
    """The pixel of a non-empty `(H, W)` bool mask that is furthest from its edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x), float(y))
