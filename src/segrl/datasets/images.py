"""Reading images as segrl wants them: EXIF orientation applied, RGB."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segrl.errors import DataError


def read_image(path: Path | str) -> Image.Image:
    """An image file as RGB with its EXIF orientation applied.

    Grey (16 bit included), palette and CMYK images are converted, transparency is dropped. Raises
    DataError naming the file if it is missing, no image, cut short, or too large to be sane.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB with its EXIF orientation applied."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright, dtype=np.uint16) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def content_id(image: Image.Image) -> str:
    """32 hexadecimal digits that are equal exactly for images of equal size and pixels."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:32]
