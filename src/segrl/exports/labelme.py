"""LabelMe: `labelme/NAME.json` for each image, to open and correct.

    {"label": "the dog", "points": [[31.5, 20.5], …], "group_id": 1, "shape_type": "polygon", …}

One shape for each connected part; the parts of one object share a `group_id`. Corners are the middles
of border pixels, which LabelMe fills with its outline. Holes are joined to their part by a bridge.
`imagePath` leads from the file to the image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segrl.contours import pixel_rings
from segrl.exports.base import Export
from segrl.exports.record import ImageRecord
from segrl.files import write_atomically
from segrl.masks import from_rle

LABELME_VERSION = "5.5.0"
"""The version of the format that the files claim; LabelMe warns for another major version than its own."""


class LabelMe(Export):
    """`labelme/`."""

    name = "labelme"

    def files(self, record: ImageRecord) -> list[Path]:
        """See Export."""
        return [self.out / "labelme" / f"{record.name}.json"]

    def add(self, record: ImageRecord) -> None:
        """See Export."""
        (path,) = self.files(record)
        width, height = record.size_wh
        content: dict[str, Any] = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": list(_shapes(record)),
            "imagePath": Path(os.path.relpath(record.image, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """See Export."""
        return self.out / "labelme"


def _shapes(record: ImageRecord) -> Iterator[dict[str, Any]]:
    objects = [(found.query, rle) for found in record.answers for rle in found.masks]
    for group, (query, rle) in enumerate(objects, 1):
        for ring in pixel_rings(from_rle(rle)):
            corners = np.resize(ring, (max(3, len(ring)), 2)) + 0.5  # LabelMe takes three points or more
            yield {
                "label": query,
                "points": corners.tolist(),
                "group_id": group,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
