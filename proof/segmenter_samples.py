"""Simulated prompts on DUTS-TR: what the tiny segmenter learns from.

A sample is a picture, one mask and a prompt. After the network has answered, it may come back with that answer as the
earlier mask and a click where it errs: so correcting is learnt from the network's own mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from segrl.masks import mask_to_box
from segrl.segmenters.tiny.network import MEAN, OUTSIDE, Crop, crop_around, rasterize, resize
from segrl.types import Box, Point

CANVAS = 224
HELD_OUT = 20
"""Every so manieth picture by name is for choosing, never for training."""
LOOSE = (0.0, 0.1, 0.2, 0.3, 0.35)
MAX_ROUNDS = 6


@dataclass(frozen=True)
class Pictures:
    """All pairs as arrays in files: images `(n, 224, 224, 3)` and masks `(n, 224, 224)` uint8; `hw[i]` is used."""

    images: np.ndarray
    masks: np.ndarray
    hw: np.ndarray

    def __len__(self) -> int:
        return len(self.hw)

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The image and its mask (0 or 1)."""
        h, w = self.hw[index]
        return self.images[index, :h, :w], self.masks[index, :h, :w]


def unpack(root: Path, cache: Path) -> Pictures:
    """DUTS-TR under `root` as arrays in the folder `cache`, written when they are not there yet."""
    names = sorted(path.stem for path in (root / "DUTS-TR" / "DUTS-TR-Image").glob("*.jpg"))
    if not names:
        raise SystemExit(f"{root} has no DUTS-TR/DUTS-TR-Image/*.jpg: give the folder of DUTS with --data")
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "hw.npy").exists():
        _write_arrays(root, cache, names)
    images, masks = (np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("images", "masks"))
    return Pictures(images, masks, np.load(cache / "hw.npy"))


def _write_arrays(root: Path, cache: Path, names: list[str]) -> None:
    shape = (len(names), CANVAS, CANVAS)
    images = np.lib.format.open_memmap(cache / "images.npy", "w+", np.uint8, (*shape, 3))
    masks = np.lib.format.open_memmap(cache / "masks.npy", "w+", np.uint8, shape)
    sizes = np.zeros((len(names), 2), np.int64)
    for i, name in enumerate(names):
        image = cv2.imread(str(root / "DUTS-TR" / "DUTS-TR-Image" / f"{name}.jpg"))[..., ::-1]
        mask = cv2.imread(str(root / "DUTS-TR" / "DUTS-TR-Mask" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        sizes[i] = h, w = min(image.shape[0], CANVAS), min(image.shape[1], CANVAS)
        images[i, :h, :w], masks[i, :h, :w] = image[:h, :w], mask[:h, :w] > 127
    images.flush()
    masks.flush()
    np.save(cache / "hw.npy", sizes)


def split(pictures: Pictures) -> tuple[list[int], list[int]]:
    """Indices for training and for choosing; pictures whose mask is empty or full are in neither."""
    used = [i for i in range(len(pictures)) if 0 < pictures.pair(i)[1].mean() < 0.95]
    return [i for i in used if i % HELD_OUT], [i for i in used if i % HELD_OUT == 0]


@dataclass(frozen=True)
class Sample:
    """image `(h, w, 3)` uint8, mask `(h, w)` uint8 of 0 and 1, the prompt in its pixels, and what was answered so far.

    prior: logits `(h, w)` float32. colour: `(3, 4)` float32, applied to red, green, blue and one. reach: of its crop.
    """

    image: np.ndarray
    mask: np.ndarray
    box: Box | None
    points: tuple[Point, ...]
    labels: tuple[int, ...]
    colour: np.ndarray
    reach: float
    prior: np.ndarray | None = None
    round: int = 0

    def crop(self) -> Crop:
        """Where the network looks."""
        positive = [p for p, label in zip(self.points, self.labels, strict=True) if label]
        prior = None if self.prior is None else mask_to_box(self.prior > 0)
        return crop_around(self.mask.shape, self.box, positive, prior, self.reach)

    def inputs(self, side: int, crop: Crop) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Pixels `(side, side, 3)` uint8, prompt maps, target `(side, side)`, the object's area outside the crop."""
        x1, y1, x2, y2 = crop
        prior = None if self.prior is None else resize(self.prior[y1:y2, x1:x2], (side, side))
        maps = rasterize(crop, side, self.box, self.points, self.labels, prior)
        inside = self.mask[y1:y2, x1:x2]
        outside = (int(self.mask.sum()) - int(inside.sum())) * side * side / inside.size
        return (
            resize(self.image[y1:y2, x1:x2], (side, side)),
            maps,
            resize(inside.astype(np.float32), (side, side)),
            outside,
        )


def fresh(pictures: Pictures, indices: list[int], rng: np.random.Generator) -> Sample:
    """A new sample: augmented, with an object chosen and a prompt drawn."""
    while True:
        image, mask = pictures.pair(indices[rng.integers(len(indices))])
        if rng.random() < 0.2:
            image, mask = _paste(image, mask, *pictures.pair(indices[rng.integers(len(indices))]), rng)
        if rng.random() < 0.2:
            image, mask = _cut(image, mask, rng)
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        chosen = _one_object(mask, rng)
        if chosen.sum() >= 24 and chosen.mean() < 0.95:
            box, points, labels = _prompt(chosen, rng)
            return Sample(image, chosen, box, points, labels, random_colours(rng), rng.uniform(1.35, 1.9))


def _paste(
    image: np.ndarray, mask: np.ndarray, other: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Another picture's object over this one; the object is the old one's rest, or the new one."""
    h, w = mask.shape
    x1, y1, x2, y2 = map(int, mask_to_box(shape > 0) or (0, 0, 1, 1))
    scale = rng.uniform(0.25, 0.6) * max(h, w) / max(x2 - x1, y2 - y1)
    wh = max(4, min(w, int((x2 - x1) * scale))), max(4, min(h, int((y2 - y1) * scale)))
    patch, cut = resize(other[y1:y2, x1:x2], wh), resize(shape[y1:y2, x1:x2].astype(np.float32), wh)
    x, y = rng.integers(0, w - wh[0] + 1), rng.integers(0, h - wh[1] + 1)
    area = np.s_[y : y + wh[1], x : x + wh[0]]
    image, pasted = image.copy(), np.zeros_like(mask)
    image[area] = (image[area] * (1 - cut[..., None]) + patch * cut[..., None]).astype(np.uint8)
    pasted[area] = cut > 0.5
    return (image, pasted) if rng.random() < 0.4 else (image, mask & (1 - pasted))


def _cut(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A part of the picture, whose border may run through the object."""
    h, w = mask.shape
    ch, cw = int(h * rng.uniform(0.45, 1)), int(w * rng.uniform(0.45, 1))
    y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
    part = mask[y : y + ch, x : x + cw]
    if part.sum() < 0.25 * mask.sum():
        return image, mask
    return image[y : y + ch, x : x + cw], part


def _one_object(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole mask, or one of its parts if it has several."""
    count, names, facts, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask))
    large = [i for i in range(1, count) if facts[i, cv2.CC_STAT_AREA] > 0.1 * mask.sum()]
    if len(large) < 2 or rng.random() < 0.6:
        return mask
    return (names == rng.choice(large)).astype(np.uint8)


def _prompt(mask: np.ndarray, rng: np.random.Generator) -> tuple[Box | None, tuple[Point, ...], tuple[int, ...]]:
    kind = rng.random()
    box = None if kind > 0.75 else loosen(mask, rng.choice(LOOSE, p=(0.25, 0.15, 0.2, 0.2, 0.2)), rng)
    if kind < 0.5:
        return box, (), ()
    if box is None and rng.random() < 0.6:
        return box, *draw_points(mask, 1, 0, rng)
    return box, *draw_points(mask, int(rng.integers(1 if box is None else 0, 4)), int(rng.integers(0, 4)), rng)


def loosen(mask: np.ndarray, by: float, rng: np.random.Generator) -> Box:
    """The mask's box with each side moved in or out by up to `by` of the box's side, within the picture."""
    x1, y1, x2, y2 = mask_to_box(mask > 0) or (0.0, 0.0, 1.0, 1.0)
    w, h = x2 - x1, y2 - y1
    moved = np.array([x1, y1, x2, y2]) + rng.uniform(-by, by, 4) * (w, h, w, h)
    low, high = np.clip(moved[:2], 0, (mask.shape[1] - 2, mask.shape[0] - 2)), moved[2:]
    high = np.clip(high, low + 1, (mask.shape[1], mask.shape[0]))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def draw_points(
    mask: np.ndarray, positive: int, negative: int, rng: np.random.Generator
) -> tuple[tuple[Point, ...], tuple[int, ...]]:
    """Points anywhere on the object, and off it within one and a half times its box."""
    points = _anywhere(mask, positive, rng)
    x1, y1, x2, y2 = mask_to_box(mask > 0) or (0.0, 0.0, 1.0, 1.0)
    near = np.zeros_like(mask)
    w, h = int(x2 - x1) // 4 + 2, int(y2 - y1) // 4 + 2
    near[max(int(y1) - h, 0) : int(y2) + h, max(int(x1) - w, 0) : int(x2) + w] = 1
    off = _anywhere(near & (1 - mask), negative, rng)
    return (*points, *off), (*([1] * len(points)), *([0] * len(off)))


def _anywhere(where: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Point, ...]:
    ys, xs = np.nonzero(where) if count else ((), ())
    if not len(ys):
        return ()
    return tuple((float(xs[i]), float(ys[i])) for i in rng.integers(0, len(ys), count))


def random_colours(rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and a cast, as a matrix `(3, 4)` for values of 0 to 1."""
    grey = np.array([0.299, 0.587, 0.114])
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4)
    mix = saturation * np.eye(3) + (1 - saturation) * grey[None]
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    matrix = mix * gain[:, None]
    bias = np.array(MEAN) * (1 - gain) * rng.uniform(0, 1) + rng.uniform(-0.08, 0.08)
    return np.concatenate([matrix, bias[:, None]], axis=1).astype(np.float32)


def onto_picture(logits: np.ndarray, crop: Crop, hw: tuple[int, int]) -> np.ndarray:
    """The crop's logits at their place in the picture, float32 `(h, w)`."""
    x1, y1, x2, y2 = crop
    canvas = np.full(hw, OUTSIDE, np.float32)
    canvas[y1:y2, x1:x2] = resize(logits, (x2 - x1, y2 - y1))
    return canvas


def click(mask: np.ndarray, answered: np.ndarray, rng: np.random.Generator | None) -> tuple[Point, int] | None:
    """Where a person would correct: the middle of the largest error, or (with `rng`, half the time) anywhere in it.

    None where there is nothing to correct.
    """
    missed, added = mask & (1 - answered), answered & (1 - mask)
    depths = [cv2.distanceTransform(np.pad(error, 1), cv2.DIST_L2, 3)[1:-1, 1:-1] for error in (missed, added)]
    label = int(depths[0].max() >= depths[1].max())
    depth = depths[1 - label]
    if depth.max() < 1:
        return None
    if rng is not None and rng.random() < 0.5:
        return _anywhere(depth > 0.5 * depth.max(), 1, rng)[0], label
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return (float(x), float(y)), label


def next_round(sample: Sample, logits: np.ndarray, crop: Crop, rng: np.random.Generator) -> Sample | None:
    """The sample with the answer as its earlier mask: as it was, or with a click; None to take a new one."""
    if sample.round + 1 >= MAX_ROUNDS or rng.random() < 0.3:
        return None
    prior = onto_picture(logits, crop, sample.mask.shape)
    again = replace(sample, prior=prior, round=sample.round + 1, reach=rng.uniform(1.35, 1.9))
    if rng.random() < 0.3:
        return again
    found = click(sample.mask, (prior > 0).astype(np.uint8), rng)
    if found is None:
        return None
    point, label = found
    return replace(again, points=(*again.points, point), labels=(*again.labels, label))
