"""Pictures on which a minimum cut may take long: little contrast, parts that repeat, noise beside one colour."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

Box = tuple[float, float, float, float]


def noise(side: int, spread: float, seed: int) -> np.ndarray:
    """`(side, side, 3)` float around 128."""
    return np.random.default_rng(seed).normal(128, spread, (side, side, 3))


def grey(values: np.ndarray) -> np.ndarray:
    """`(side, side)` → three equal channels."""
    return np.repeat(np.asarray(values, float)[..., None], 3, axis=2)


def flat(side: int) -> Iterator[np.ndarray]:
    """One colour, and two or more in lines, squares, dots and waves."""
    ys, xs = np.mgrid[:side, :side]
    yield grey(0 * xs + 90)
    for width in (1, 2, 3, 7, 16, side // 2):
        yield grey(np.where(xs // width % 2, 60, 200))
        yield grey(np.where((xs // width + ys // width) % 2, 120, 124))
    for share in (0.0005, 0.003, 0.02, 0.1):
        yield grey(np.where(np.random.default_rng(1).random((side, side)) < share, 0, 240))
    for period in (5, 40, side):
        yield grey(128 + 90 * np.sin(2 * np.pi * xs / period) * np.sin(2 * np.pi * ys / (period + 3)))


def gradients(side: int) -> Iterator[np.ndarray]:
    """Along an axis, a diagonal, a circle; with noise and without."""
    ys, xs = np.mgrid[:side, :side] / side
    for spread in (0.0, 0.6, 3.0):
        more = noise(side, spread, 2) - 128
        yield grey(255 * xs) + more
        yield np.stack([255 * xs, 255 * ys, 127 * (xs + ys)], -1) + more
        yield grey(255 * np.hypot(xs - 0.5, ys - 0.5)) + more
        yield 128 + np.stack([3 * xs, 3 * ys, 2 * xs], -1) + more


def noisy(side: int) -> Iterator[np.ndarray]:
    """Noise, smooth and rough, with rare strong pixels, which make all other contrast count for little."""
    for spread in (0.5, 1, 3, 30, 100):
        yield noise(side, spread, 3)
        yield grey(noise(side, spread, 4)[..., 0])
        for share in (0.003, 0.03):
            rng = np.random.default_rng(5)
            for shift in (0, 1):
                pixels = noise(side, spread, 5)
                pixels[8:-8, 8:-8] += shift
                strong = rng.random((side, side)) < share
                pixels[strong] = rng.choice([0.0, 255.0], strong.sum())[:, None]
                yield pixels
    for radius in (2, 10, 40):
        for spread in (3, 30, 60):
            smooth = cv2.GaussianBlur(noise(side, 1, 6) - 128, (0, 0), radius)
            yield 128 + spread * smooth / smooth.std()


def beside(side: int) -> Iterator[np.ndarray]:
    """One colour beside noise, and around it."""
    for spread in (1, 30):
        for share in (0.06, 0.12, 0.25, 0.4, 0.7):
            pixels = noise(side, spread, 7)
            pixels[:, int(side * share) :] = 128
            yield pixels
            framed, edge = noise(side, spread, 8), int(side * share / 4)
            framed[edge:-edge, edge:-edge] = 120
            yield framed


def written(side: int) -> Iterator[np.ndarray]:
    """Lines of short strokes, as of a page; blocks as JPEG leaves them."""
    rng = np.random.default_rng(9)
    for height in (6, 12):
        page = np.full((side, side), 245.0)
        for y in range(height, side - height, 2 * height):
            for x in range(height, side - height, height):
                a, b = rng.integers(0, height - 1, (2, 2))
                cv2.line(page, (x + int(a[0]), y + int(a[1])), (x + int(b[0]), y + int(b[1])), 10.0, 1)
        yield grey(page)
        yield grey(page) + noise(side, 1, 9) - 128
    for quality in (5, 50):
        _, data = cv2.imencode(
            ".jpg", noise(side, 20, 10).clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        yield cv2.imdecode(data, cv2.IMREAD_COLOR).astype(float)


def pictures(side: int) -> list[np.ndarray]:
    """All of them, `(side, side, 3)` uint8."""
    kinds = (flat, gradients, noisy, beside, written)
    return [np.clip(np.rint(one), 0, 255).astype(np.uint8) for kind in kinds for one in kind(side)]


def boxes(side: int) -> list[Box]:
    """A box that leaves a thin edge, one off the middle, and one in it; all at the same places of any side."""
    return [
        (0.01 * side, 0.01 * side, 0.98 * side, 0.98 * side),
        (0.03 * side, 0.02 * side, 0.7 * side, 0.9 * side),
        (0.3 * side, 0.3 * side, 0.7 * side, 0.7 * side),
    ]
