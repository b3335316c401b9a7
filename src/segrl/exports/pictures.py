"""Pictures, one for each image and query, in a folder per query: masks as PNG, overlays, cut-outs.

A mask is the union of the query's objects, 0 outside and 255 inside, so nothing found is black. An
overlay is the image with masks, boxes and points drawn over it. A cut-out is the image with the mask as its alpha
channel, so what is not the object is transparent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from segrl import overlay
from segrl.exports.base import Export, Found, ImageRecord, query_folder
from segrl.files import write_bytes, write_image
from segrl.images import read_image
from segrl.masks import from_rle, png_bytes


class _Pictures(Export):
    suffix: str

    def files(self, record: ImageRecord) -> list[Path]:
        return [self._path(record, found) for found in record.answers]

    def add(self, record: ImageRecord, queries: Collection[str] | None = None) -> None:
        """See Export. Raises DataError if the image is read again and gone."""
        self._write(record, [one for one in record.answers if queries is None or one.query in queries])

    def keep(self, old: ImageRecord, new: ImageRecord, was: Export) -> None:
        """See Export. Folders get their new numbers."""
        assert isinstance(was, type(self))
        for found in old.answers:
            there = was._path(old, found)
            if found.query not in self.class_of:
                self._unlink(there)
            elif there != (here := self._path(new, found)) and there.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                there.replace(here)
                self._unlink(there)

    def _write(self, record: ImageRecord, answers: Sequence[Found]) -> None:
        raise NotImplementedError

    def _path(self, record: ImageRecord, found: Found) -> Path:
        folder = query_folder(self.class_of[found.query], found.query)
        return self.place / folder / f"{record.name}{self.suffix}"


class Png(_Pictures):
    """`png/QUERY/NAME.png`."""

    name, suffix = "png", ".png"

    def _write(self, record: ImageRecord, answers: Sequence[Found]) -> None:
        for found in answers:
            write_bytes(self._path(record, found), png_bytes(_union(record, found)))


class Overlay(_Pictures):
    """`overlay/QUERY/NAME.jpg`. Reads the image again."""

    name, suffix = "overlay", ".jpg"

    def _write(self, record: ImageRecord, answers: Sequence[Found]) -> None:
        image = read_image(record.image, pictures=self.style.pictures)
        for found in answers:
            drawn = overlay.draw(image, _masks(record, found), found.prompts)
            write_image(self._path(record, found), drawn, quality=90)


class Cutout(_Pictures):
    """`cutout/QUERY/NAME.png`. Reads the image again."""

    name, suffix = "cutout", ".png"

    def _write(self, record: ImageRecord, answers: Sequence[Found]) -> None:
        image = read_image(record.image, pictures=self.style.pictures)
        for found in answers:
            cut = overlay.cutout(image, _union(record, found))
            write_image(self._path(record, found), cut, compress_level=1)


def _masks(record: ImageRecord, found: Found) -> np.ndarray:
    width, height = record.size_wh
    return np.stack([from_rle(rle) for rle in found.masks]) if found.masks else np.zeros((0, height, width), bool)


def _union(record: ImageRecord, found: Found) -> np.ndarray:
    return np.asarray(_masks(record, found).any(axis=0))
