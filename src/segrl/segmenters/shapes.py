"""A stand-in for SAM 3 that needs no weights: it knows plain coloured shapes by words, boxes and examples.

Pixels far from grey are objects; each touching group is split where it is narrow, and named by colour, by the
outline that fits best, and by size. Understood of a phrase is its first noun phrase: colours, shapes, "small" and
"large", "object"; other words are passed over, as a detector does with what it was not trained on. It exists so that
answers in words can be tried, tested and learned in the tiny world. It looks at pixels alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from segrl.masks import mask_to_box
from segrl.segmenters.concept import every_one, the_one
from segrl.segmenters.protocol import ALL_PROMPTS, Embedding, Instances, check_frames
from segrl.types import MaskPrompt

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

COLOURS = {
    "red": (205, 50, 45),
    "green": (50, 160, 70),
    "blue": (55, 85, 205),
    "yellow": (225, 200, 55),
    "purple": (150, 60, 170),
}
OUTLINES = ("circle", "square", "triangle", "star")
SHAPES = (*OUTLINES, "ring")
SIZES = ("small", "large")
ANY = ("object", "thing", "shape")
_ENDS = frozenset({"and", "or", "of", "that", "which", "with", "in", "on", "just"})
"""Words at which a phrase's first noun phrase ends."""

SIDE = 224
"""Longer side at which a larger picture is looked at; masks are enlarged again."""
CHROMA = 50.0
"""How far from grey a pixel of an object is at least (length of its colour without the grey part, 0–255)."""
LEAST_AREA = 40
"""Pixels of an object at least."""
HOLE = 0.12
"""Share of a shape's filled area that its hole has at least, for a ring."""
LARGE = 0.14
"""Radius from which a shape is large, as a share of the picture's longer side."""
TEMPLATE = 48
_ANGLES = (-0.35, -0.2, 0.0, 0.2, 0.35)


@dataclass(frozen=True)
class Wanted:
    """What a phrase asks for: the words of each kind that it holds; all empty for any object."""

    colours: frozenset[int]
    shapes: frozenset[int]
    sizes: frozenset[int]

    def fits(self, name: Sequence[int]) -> bool:
        """Whether an object of this (colour, shape, size) is meant."""
        kinds = (self.colours, self.shapes, self.sizes)
        return all(not wanted or one in wanted for wanted, one in zip(kinds, name, strict=True))


def understood(phrase: str) -> Wanted | None:
    """What a phrase asks for; None for one without a word that is known.

    >>> understood("the leftmost object"), understood("people")
    (Wanted(colours=frozenset(), shapes=frozenset(), sizes=frozenset()), None)
    """
    known = []
    for word in re.findall(r"[a-z]+|,", phrase.lower()):
        if word == "," or word in _ENDS:
            break
        known += [one for one in (word, word.removesuffix("s")) if one in (*COLOURS, *SHAPES, *SIZES, *ANY)][:1]
    if not known:
        return None
    kinds = (list(COLOURS), SHAPES, SIZES)
    return Wanted(*(frozenset(kind.index(word) for word in known if word in kind) for kind in kinds))


class ShapeSegmenter:
    """The segmenter; see the module. encoder_calls: pictures looked at."""

    takes = ALL_PROMPTS

    def __init__(self) -> None:
        self.encoder_calls = 0

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """Every object of each image: `masks` `(n, H, W)` bool, `names` `(n, 3)` and `scores` `(n,)`."""
        return [self._encoded(image) for image in images]

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`: of a phrase all instances as one mask."""
        return every_one(self, embeddings, prompts)

    def decode_instances(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[list[Instances]]:
        """See `WordSegmenter.decode_instances`; the masks are on the CPU."""
        check_frames(prompt for image_prompts in prompts for prompt in image_prompts)
        return [
            [_instances(embedding.tensors, prompt) for prompt in image_prompts]
            for embedding, image_prompts in zip(embeddings, prompts, strict=True)
        ]

    def _encoded(self, image: Image.Image) -> Embedding:
        import cv2
        import numpy as np
        import torch

        self.encoder_calls += 1
        pixels = np.asarray(image.convert("RGB"))
        hw = pixels.shape[:2]
        scale = min(1.0, SIDE / max(hw))
        small = pixels if scale == 1 else cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = list(_objects(small))
        stacked = np.zeros((len(found), *hw), dtype=bool)
        for row, one in zip(stacked, found, strict=True):
            row[:] = cv2.resize(one.mask.astype(np.uint8), (hw[1], hw[0]), interpolation=cv2.INTER_NEAREST) > 0
        names = np.array([one.name for one in found], dtype=np.int64).reshape(-1, 3)
        scores = torch.tensor([one.score for one in found], dtype=torch.float32)
        tensors = {"masks": torch.from_numpy(stacked), "names": torch.from_numpy(names), "scores": scores}
        return Embedding(hw, tensors)


def _instances(seen: Mapping[str, torch.Tensor], prompt: MaskPrompt) -> Instances:
    """The objects that a prompt asks for, surest first."""
    masks, scores, names = seen["masks"], seen["scores"], seen["names"].tolist()
    wanted = understood(prompt.phrase)
    is_asked = [wanted.fits(name) if wanted is not None else not prompt.phrase for name in names]
    likes = [_object_at(seen, box) for box, label in _examples(prompt) if label == 1]
    unlikes = [_object_at(seen, box) for box, label in _examples(prompt) if label == 0]
    alike = [names[i][:2] for i in likes if i is not None]
    if likes and not prompt.marks_one:
        is_asked = [asked and name[:2] in alike for asked, name in zip(is_asked, names, strict=True)]
    kept = [i for i, asked in enumerate(is_asked) if asked and i not in unlikes]
    kept.sort(key=lambda i: -float(scores[i]))
    return the_one(Instances(masks[kept], scores[kept]), prompt)


def _examples(prompt: MaskPrompt) -> Iterator[tuple[tuple[float, ...], int]]:
    yield from zip(prompt.exemplars_xyxy, prompt.exemplar_labels, strict=True)


def _object_at(seen: Mapping[str, torch.Tensor], box: tuple[float, ...]) -> int | None:
    """The object whose box is most like this one; None if none shares a pixel with it."""
    import numpy as np

    from segrl.coordinates import box_ious

    own = [mask_to_box(mask.numpy()) for mask in seen["masks"]]
    if not own:
        return None
    overlaps = box_ious(np.array(own, dtype=float), np.array(box, dtype=float))
    best = int(overlaps.argmax())
    return best if overlaps[best] > 0 else None


@dataclass(frozen=True)
class _Object:
    """mask `(H, W)` bool; name: places in COLOURS, SHAPES and SIZES; score: how well the outline fits, 0–1."""

    mask: np.ndarray
    name: tuple[int, int, int]
    score: float


def _objects(rgb: np.ndarray) -> Iterator[_Object]:
    """What stands out from grey in `(H, W, 3)` uint8, from left to right within each colour."""
    import cv2
    import numpy as np

    nearest, strength = _colours(rgb)
    for colour in range(len(COLOURS)):
        own = ((nearest == colour) & (strength > CHROMA)).astype(np.uint8)
        own = cv2.morphologyEx(own, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels = cv2.connectedComponents(own, connectivity=4)
        for number in range(1, count):
            for part in _split(labels == number):
                if part.sum() >= LEAST_AREA:
                    yield _named(part, colour)


def _colours(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel the nearest colour `(H, W)` int and how far it is from grey `(H, W)` float32."""
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(rgb, (3, 3), 0).astype(np.float32)
    chroma = smooth - smooth.mean(axis=2, keepdims=True)
    strength = np.sqrt((chroma**2).sum(axis=2))
    hues = np.array(list(COLOURS.values()), dtype=np.float32)
    hues -= hues.mean(axis=1, keepdims=True)
    hues /= np.linalg.norm(hues, axis=1, keepdims=True)
    return (chroma @ hues.T).argmax(axis=2), strength


def _split(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The parts of a connected `(H, W)` bool mask that hang together by a narrow place only."""
    import cv2
    import numpy as np

    filled = _filled(mask)
    depth = cv2.distanceTransform(np.pad(filled, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    seeds = _seeds(filled, depth)
    if len(seeds) == 1:
        yield mask
        return
    away = [cv2.distanceTransform((~seed).astype(np.uint8), cv2.DIST_L2, 5) for seed in seeds]
    nearest = np.argmin(away, axis=0)
    yield from (mask & (nearest == i) for i in range(len(seeds)))


def _seeds(region: np.ndarray, depth: np.ndarray) -> list[np.ndarray]:
    """The cores of a region: where a higher level of its depth falls apart into parts that each rise on."""
    import cv2
    import numpy as np

    top = float(depth[region].max(initial=0))
    for level in range(1, int(top) + 1):
        count, labels = cv2.connectedComponents((region & (depth > level)).astype(np.uint8), connectivity=8)
        parts = [labels == number for number in range(1, count)]
        rising = [part for part in parts if depth[part].max() >= level + max(1.5, 0.25 * depth[part].max())]
        if len(rising) > 1:
            return [seed for part in rising for seed in _seeds(part, depth)]
    return [region & (depth >= max(top - 1, np.finfo(float).tiny))]


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes."""
    import cv2
    import numpy as np

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def _named(mask: np.ndarray, colour: int) -> _Object:
    import numpy as np

    filled = _filled(mask)
    area = float(filled.sum())
    outline, score = _outline(filled)
    if 1 - mask.sum() / area >= HOLE:
        outline, score = SHAPES.index("ring"), max(score, 0.5)
    radius = float(np.sqrt(area / np.pi)) / max(mask.shape)
    return _Object(mask, (colour, outline, int(radius > LARGE * _SPREAD[outline])), score)


_SPREAD = (1.0, 0.92, 0.77, 0.71, 1.0)
"""Radius of the disc of equal area, in outer radii of each of SHAPES."""


def _outline(filled: np.ndarray) -> tuple[int, float]:
    """Which of OUTLINES fits best, and its IoU."""
    import cv2
    import numpy as np

    ys, xs = np.nonzero(filled)
    scale = np.sqrt(0.25 * TEMPLATE**2 / len(ys))
    shift = np.array([[scale, 0, TEMPLATE / 2 - scale * xs.mean()], [0, scale, TEMPLATE / 2 - scale * ys.mean()]])
    crop = cv2.warpAffine(filled.astype(np.float32), shift, (TEMPLATE, TEMPLATE), flags=cv2.INTER_LINEAR) > 0.5
    templates = _templates()
    both = (templates & crop).sum(axis=(1, 2))
    overlaps = both / (templates | crop).sum(axis=(1, 2))
    best = int(overlaps.argmax())
    return best // len(_ANGLES), float(overlaps[best])


@cache
def _templates() -> np.ndarray:
    """Every outline at every angle, `(K, TEMPLATE, TEMPLATE)` bool, each of a quarter of the area."""
    import numpy as np

    return np.stack([_template(outline, angle) for outline in OUTLINES for angle in _ANGLES])


def _template(outline: str, angle: float) -> np.ndarray:
    import cv2
    import numpy as np

    radii, first = {
        "circle": (np.ones(36), 0.0),
        "square": (np.ones(4), np.pi / 4),
        "triangle": (np.ones(3), -np.pi / 2),
        "star": (np.tile([1.2, 0.45], 5), -np.pi / 2),
    }[outline]
    turns = first + angle + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    corners = np.stack([np.cos(turns), np.sin(turns)], axis=1) * radii[:, None]
    x, y = corners.T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    corners = corners * np.sqrt(0.25 * TEMPLATE**2 / area) + TEMPLATE / 2
    drawn = np.zeros((TEMPLATE, TEMPLATE), np.uint8)
    cv2.fillPoly(drawn, [np.round(corners).astype(np.int32)], 1)
    return drawn.astype(bool)
