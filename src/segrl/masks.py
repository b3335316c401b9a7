"""Bool masks to and from files and the field's exchange formats.

Inside segrl a mask is `bool`, `(H, W)` or `(N, H, W)`; 0/255 exists only in `read_png` and `write_png`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypedDict

import numpy as np
from PIL import Image

from segrl.contours import edge_rings
from segrl.errors import DataError
from segrl.types import Box


class Rle(TypedDict):
    """COCO's compressed run-length encoding: `size` is [height, width], `counts` an ASCII string."""

    size: list[int]
    counts: str


def to_rle(mask: np.ndarray) -> Rle:
    """`(H, W)` bool → compressed RLE, equal to pycocotools' with `counts` as text."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def from_rle(rle: Rle) -> np.ndarray:
    """Compressed RLE → `(H, W)` bool."""
    from pycocotools import mask as coco

    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")}).astype(bool)


def mask_to_box(mask: np.ndarray) -> Box | None:
    """The box of a `(H, W)` bool mask: `(x_min, y_min, x_max + 1, y_max + 1)`; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(xs) == 0:
        return None
    return (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))


def box_to_mask(box: Box, image_hw: tuple[int, int]) -> np.ndarray:
    """A filled box (original pixels, exclusive maximum) as a `(H, W)` bool mask.

    A pixel belongs to it if its centre does, and a box with a fraction of a pixel still has one.
    """
    mask = np.zeros(image_hw, dtype=bool)
    (x1, x2), (y1, y2) = _span(box[0], box[2], image_hw[1]), _span(box[1], box[3], image_hw[0])
    mask[y1:y2, x1:x2] = True
    return mask


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and one-past-last index of the pixels whose centres lie in [low, high); else the one in its middle."""
    first, last = max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), size)
    if first < last:
        return first, last
    middle = min(max(int((low + high) / 2), 0), size - 1)
    return middle, middle + 1


def polygons_to_mask(polygons: Sequence[Sequence[float]], image_hw: tuple[int, int]) -> np.ndarray:
    """COCO polygons (`[x1, y1, x2, y2, …]` each, pixels) → their union as `(H, W)` bool, as pycocotools draws it.

    Fewer than three corners enclose nothing.
    """
    from pycocotools import mask as coco

    rings = [list(polygon) for polygon in polygons if len(polygon) >= 6]  # four numbers are a box to pycocotools
    if not rings:
        return np.zeros(image_hw, dtype=bool)
    return coco.decode(coco.merge(coco.frPyObjects(rings, *image_hw))).astype(bool)


def mask_to_polygons(mask: np.ndarray, tolerance_px: float = 0.0) -> list[list[float]]:
    """`(H, W)` bool → COCO polygons, one for each connected part; none for an empty mask.

    `polygons_to_mask` gives the mask again, pixel for pixel; with a tolerance (`contours.simplify`) what it gives
    differs within so many pixels of the mask's border. They run along the edges between pixels, and holes are
    joined by bridges that enclose nothing (`contours`).
    """
    return [[float(value) for value in ring.ravel()] for ring in edge_rings(mask, tolerance_px)]


def write_png(mask: np.ndarray, path: Path | str) -> None:
    """A `(H, W)` bool mask as an 8-bit grey PNG: 0 is background, 255 the object."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def png_bytes(mask: np.ndarray) -> bytes:
    """The file that `write_png` writes."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def read_png(path: Path | str | BinaryIO) -> np.ndarray:
    """A mask file → `(H, W)` bool: True where the value is over half of full scale.

    Full scale is 1, 255 or 65535: the smallest that no value exceeds. Raises DataError if the file
    is no image.
    """
    return over_half(read_index_png(path))


def over_half(values: np.ndarray) -> np.ndarray:
    """`(H, W)` integers → `(H, W)` bool by `read_png`'s rule."""
    largest = values.max(initial=0)
    return values > (0 if largest <= 1 else 127 if largest <= 255 else 32767)


def read_index_png(path: Path | str | BinaryIO) -> np.ndarray:
    """An indexed mask file → `(H, W)` int32 with the values as they stand; palettes are not looked up.

    Raises DataError if the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            plain = image if image.mode in ("L", "P", "1", "I", "I;16", "I;16B") else image.convert("L")
            return np.array(plain, dtype=np.int32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the mask {path}: {error}") from error
