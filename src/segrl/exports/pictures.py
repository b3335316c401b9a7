"""Pictures, one for each image and query, in a folder per query: masks as PNG, and overlays.

A mask is the union of the query's objects, 0 outside and 255 inside, so nothing found is black. An
overlay is the image with masks, boxes and points drawn over it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segrl import overlay
from segrl.exports.base import Export, query_folder
from segrl.exports.record import Found, ImageRecord
from segrl.files import write_bytes, write_image
from segrl.images import read_image
from segrl.masks import from_rle, png_bytes


class _Pictures(Export):
    suffix: str

    def files(self, record: ImageRecord) -> list[Path]:
        """See Export."""
        return [self._path(record, found) for found in record.answers]

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """See Export."""
        return self.out / self.name

    def _path(self, record: ImageRecord, found: Found) -> Path:
        folder = query_folder(self.class_of[found.query], found.query)
        return self.out / self.name / folder / f"{record.name}{self.suffix}"


class Png(_Pictures):
    """`png/QUERY/NAME.png`."""

    name, suffix = "png", ".png"

    def add(self, record: ImageRecord) -> None:
        """See Export."""
        for found in record.answers:
            write_bytes(self._path(record, found), png_bytes(np.logical_or.reduce(_masks(record, found), axis=0)))


class Overlay(_Pictures):
    """`overlay/QUERY/NAME.jpg`. Reads the image again."""

    name, suffix = "overlay", ".jpg"

    def add(self, record: ImageRecord) -> None:
        """See Export. Raises DataError if the image is gone."""
        image = read_image(record.image)
        for found in record.answers:
            drawn = overlay.draw(image, _masks(record, found), found.prompts)
            write_image(self._path(record, found), drawn, quality=90)


def _masks(record: ImageRecord, found: Found) -> np.ndarray:
    width, height = record.size_wh
    return np.stack([from_rle(rle) for rle in found.masks]) if found.masks else np.zeros((0, height, width), bool)
