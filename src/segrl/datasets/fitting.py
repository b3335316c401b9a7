"""Masks brought to the size and orientation of the image that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from segrl.errors import DataError
from segrl.images import ImageBytes

MAX_STRETCH = 0.02
"""A mask of another size is scaled only where its two sides agree on the factor to this relative difference."""

# EXIF orientations that swap the sides, and the turn that PIL's exif_transpose gives them.
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def fit_mask(
    mask: np.ndarray,
    image_wh: tuple[int, int],
    image_file: Path | ImageBytes,
    mask_name: str,
    *,
    scale: bool = True,
) -> np.ndarray:
    """A `(H, W)` bool mask at the size of its upright image, `image_wh` (width, height).

    A mask of the same size is returned as it stands. Where the file's EXIF orientation swaps the
    sides and the mask has the sides of the stored pixels, it was drawn on them and is turned with
    them. Another size of the same proportions is scaled (nearest pixel), as the field's evaluation
    scripts do with such files, unless `scale` is False. Raises DataError naming both files for anything else.
    """
    width, height = image_wh
    if mask.shape == (height, width):
        return mask
    turn = _TURNS.get(_orientation(image_file))
    if turn is not None and mask.shape == (width, height):
        return np.asarray(_as_image(mask).transpose(turn)) > 0
    factors = height / mask.shape[0], width / mask.shape[1]
    if not scale or abs(factors[0] / factors[1] - 1) > MAX_STRETCH:
        raise DataError(
            f"the mask {mask_name} is {mask.shape[1]}×{mask.shape[0]} pixels "
            f"but its image {image_file.name} is {width}×{height}"
        )
    return np.asarray(_as_image(mask).resize(image_wh, Image.Resampling.NEAREST)) > 0


def _as_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8))


def _orientation(image_file: Path | ImageBytes) -> int:
    with Image.open(image_file) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
