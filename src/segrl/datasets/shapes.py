"""Shapes that are not COCO's, drawn as the program that owns them draws them.

Each function takes the shape's own values first and then `image_hw` (height, width) and a name for messages, as
`drawing.Draw` does, and gives `(H, W)` bool. Corners are checked before anything is drawn.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from segrl import brush
from segrl.datasets.drawing import Draw, checked_box
from segrl.errors import DataError
from segrl.images import ImageBytes, PictureOptions
from segrl.masks import box_to_mask, check_corners, read_mask
from segrl.types import Box, Point


def union(parts: Sequence[Draw], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """Several shapes as one."""
    mask = np.zeros(image_hw, dtype=bool)
    for part in parts:
        mask |= part(image_hw, name)
    return mask


def outlined_by_pillow(points: Sequence[float], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A polygon (x, y, … in pixels) filled with its outline, as LabelMe fills it (`labelme.utils.shape_to_mask`)."""
    (corners,) = check_corners([points], image_hw, name)
    drawn = Image.new("1", image_hw[::-1])
    ImageDraw.Draw(drawn).polygon([(float(x), float(y)) for x, y in corners], outline=1, fill=1)
    return np.array(drawn)


def outlined_by_opencv(shares: Sequence[float], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A polygon (x, y, … as shares of width and height) filled with its outline, as Ultralytics fills it.

    Corners are cut to whole pixels (`ultralytics.data.utils.polygon2mask`).
    """
    import cv2

    (corners,) = check_corners([scaled(shares, image_hw)], image_hw, name)
    drawn = np.zeros(image_hw, dtype=np.uint8)
    cv2.fillPoly(drawn, [corners.astype(np.int32)], 1)
    return drawn.astype(bool)


def scaled(shares: Sequence[float], image_hw: tuple[int, int]) -> list[float]:
    """x, y, … as shares of width and height → pixels."""
    return [share * image_hw[1 - i % 2] for i, share in enumerate(shares)]


def ellipse(centre: Point, radii: tuple[float, float], degrees: float, hw: tuple[int, int], name: str) -> np.ndarray:
    """The pixels whose centres lie in an ellipse that is turned by `degrees` clockwise; all in pixels."""
    corners = [centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]]
    check_corners([corners], hw, name)
    if not (radii[0] > 0 and radii[1] > 0 and math.isfinite(degrees)):
        raise DataError(f"{name} has an ellipse without an area")
    ys, xs = np.ogrid[: hw[0], : hw[1]]
    dx, dy = xs + np.float32(0.5 - centre[0]), ys + np.float32(0.5 - centre[1])
    cos, sin = np.float32(math.cos(math.radians(degrees))), np.float32(math.sin(math.radians(degrees)))
    along, across = (dx * cos + dy * sin) / np.float32(radii[0]), (dy * cos - dx * sin) / np.float32(radii[1])
    return np.asarray(along**2 + across**2 <= 1)


def filled_box(shares: Box, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A box given as shares of width and height."""
    x1, y1, x2, y2 = scaled(shares, image_hw)
    return box_to_mask(checked_box((x1, y1, x2, y2), image_hw, name), image_hw)


def pasted(data: str, corner: Point, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A mask file in base64 whose top-left pixel lies at `corner`; what lies outside the image is cut off."""
    try:
        file = ImageBytes(base64.b64decode(data, validate=True), f"of {name}")
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name} has a mask that is no base64") from error
    part = read_mask(file, PictureOptions(max_megapixels=max(image_hw[0] * image_hw[1] / 1e6, 0.001)))
    mask = np.zeros(image_hw, dtype=bool)
    check_corners([corner], image_hw, name)
    x, y = (math.floor(value + 0.5) for value in corner)
    inside = part[max(-y, 0) : image_hw[0] - y, max(-x, 0) : image_hw[1] - x]
    mask[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
    return mask


def painted(rle: bytes, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A brush region of Label Studio."""
    return brush.decode(rle, image_hw, name)
