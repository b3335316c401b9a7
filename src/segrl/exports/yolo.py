"""YOLO segmentation: `labels/NAME.txt` for each image, a line per object, and `data.yaml` with the classes.

    0 0.250781 0.301042 0.250781 0.417708 0.389844 0.417708

is the class (the place of the query) and x, y of each corner as a share of width and height. Corners
lie on border pixels, which is what OpenCV fills, and with it Ultralytics and supervision; a quarter of
a pixel off their corner, so that readers that round (supervision) and readers that cut (Ultralytics)
find the same pixel. The format has one ring per line: an object in several parts has a line for each,
a hole is joined to its part. Nothing found is an empty file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from segrl.contours import pixel_rings
from segrl.exports.base import Export
from segrl.exports.record import Found, ImageRecord
from segrl.files import write_atomically
from segrl.masks import from_rle

QUARTER = 0.25
"""Pixels from a pixel's corner to the written point: rounded and cut, it is the same pixel."""


class Yolo(Export):
    """`yolo/data.yaml` and `yolo/labels/`."""

    name = "yolo"

    def files(self, record: ImageRecord) -> list[Path]:
        """See Export."""
        return [self.out / "yolo" / "labels" / f"{record.name}.txt"]

    def add(self, record: ImageRecord) -> None:
        """See Export."""
        (path,) = self.files(record)
        lines = [line for found in record.answers for line in _lines(found, self.class_of[found.query])]
        write_atomically(path, "".join(lines))

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """See Export."""
        import yaml

        folder = self.out / "yolo"
        classes = {"nc": len(self.queries), "names": list(self.queries)}
        write_atomically(folder / "data.yaml", yaml.safe_dump(classes, allow_unicode=True, sort_keys=False))
        return folder


def _lines(found: Found, place: int) -> Iterator[str]:
    for rle in found.masks:
        size_hw = np.array(rle["size"])
        for ring in pixel_rings(from_rle(rle)):
            corners = np.resize(ring, (max(3, len(ring)), 2))  # a line of fewer than three would be a box
            shares = (corners + QUARTER) / size_hw[::-1]
            yield f"{place} {' '.join(f'{share:.6f}' for share in shares.ravel())}\n"
