"""Reading images as segrl wants them: EXIF orientation applied, RGB."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from segrl.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""File names that are taken for images in a folder."""


class ImageBytes(io.BytesIO):
    """The bytes of an image file that has no path, under a name for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __str__(self) -> str:
        return self.name


def read_image(file: Path | str | BinaryIO, name: str | None = None) -> Image.Image:
    """An image file as RGB with its EXIF orientation applied.

    Grey (16 bit included), palette and CMYK images are converted, transparency is dropped. Raises
    DataError naming the file (by `name` for one without a path) if it is missing, no image, cut
    short, or too large to be sane.
    """
    try:
        with Image.open(file) as image:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {name or file}: {error}") from error


def as_image(image: Image.Image | Path | str | bytes | np.ndarray) -> Image.Image:
    """Whatever a user holds, as RGB with its EXIF orientation applied.

    A path, the bytes of an image file, a PIL image, or an array `(H, W)` or `(H, W, 3)` of uint8 in
    RGB order. Raises DataError for anything else and for a URL, which segrl never opens.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes):
        return read_image(io.BytesIO(image), "of those bytes")
    if isinstance(image, np.ndarray):
        grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not grey_or_rgb or image.size == 0:
            raise DataError(f"an image array is uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
        return Image.fromarray(image).convert("RGB")
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise DataError(f"segrl opens no addresses: download {image} and give the file")
    return read_image(image)


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
