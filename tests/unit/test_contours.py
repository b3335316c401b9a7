"""Rings that readers with a line around what they fill turn into the mask again."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from segrl.contours import edge_rings, pixel_rings

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(MASKS)
def test_opencv_fills_pixel_rings_to_the_mask(mask: np.ndarray) -> None:
    drawn = np.zeros(mask.shape, np.uint8)
    for ring in pixel_rings(mask):
        cv2.fillPoly(drawn, [ring.astype(np.int32)], 1)
    assert np.array_equal(drawn.astype(bool), mask)


@given(MASKS)
def test_pillow_fills_pixel_rings_to_the_mask(mask: np.ndarray) -> None:
    drawn = Image.new("1", mask.shape[::-1])
    for ring in pixel_rings(mask):
        points = [(x + 0.5, y + 0.5) for x, y in ring.tolist()]
        ImageDraw.Draw(drawn).polygon((points * 3)[: max(3, len(points))], fill=1, outline=1)
    assert np.array_equal(np.array(drawn), mask)


def test_rings_are_as_short_as_the_shape() -> None:
    mask = np.zeros((50, 80), dtype=bool)
    assert pixel_rings(mask) == edge_rings(mask) == []
    mask[10:20, 30:70] = True
    mask[40, 5] = True
    assert sorted(map(len, pixel_rings(mask))) == [1, 4]
    assert sorted(map(len, edge_rings(mask))) == [4, 4]
