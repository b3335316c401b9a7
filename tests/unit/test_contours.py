"""Rings that readers with a line around what they fill turn into the mask again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from segrl.contours import EDITABLE_PX, edge_rings, pixel_rings
from segrl.masks import mask_to_polygons, polygons_to_mask

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


def blobs(seed: int, side: int) -> np.ndarray:
    """A mask with smooth borders, holes and several parts, as segmenters make them."""
    noise = np.random.default_rng(seed).random((side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), side / 12)
    return smooth > np.quantile(smooth, 0.7)


def off_the_border(mask: np.ndarray) -> np.ndarray:
    """Pixels that no pixel of the other kind touches, at a side or a corner."""
    touch = np.ones((3, 3), np.uint8)
    return cv2.dilate(np.uint8(mask), touch) == cv2.erode(np.uint8(mask), touch)


@pytest.mark.parametrize("side", [24, 120, 480])
@pytest.mark.parametrize("seed", range(6))
def test_simplified_rings_change_border_pixels_only(seed: int, side: int) -> None:
    mask = blobs(seed, side)
    polygons = mask_to_polygons(mask, EDITABLE_PX)
    drawn = polygons_to_mask(polygons, mask.shape)
    assert not (drawn ^ mask)[off_the_border(mask)].any()
    assert len(polygons) == len(mask_to_polygons(mask))
    line = np.zeros(mask.shape, np.uint8)
    for ring in pixel_rings(mask, EDITABLE_PX):
        cv2.fillPoly(line, [ring.astype(np.int32)], 1)
    assert not (line.astype(bool) ^ mask)[off_the_border(mask)].any()


def test_a_round_object_can_be_edited() -> None:
    ys, xs = np.mgrid[:480, :640]
    mask = ((xs - 320) / 200) ** 2 + ((ys - 240) / 150) ** 2 < 1
    (exact,), (editable,) = edge_rings(mask), edge_rings(mask, EDITABLE_PX)
    assert len(exact) > 300
    assert len(editable) <= 40


@given(MASKS)
def test_no_part_is_lost_by_simplifying(mask: np.ndarray) -> None:
    drawn = polygons_to_mask(mask_to_polygons(mask, EDITABLE_PX), mask.shape)
    n_parts, parts = cv2.connectedComponents(np.uint8(mask))
    assert all((drawn & (parts == part)).any() for part in range(1, n_parts))
