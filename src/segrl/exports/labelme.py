"""LabelMe: `labelme/NAME.json` for each image, to open and correct.

    {"label": "the dog", "points": [[31.5, 20.5], …], "group_id": 1, "shape_type": "polygon",
     "description": "score 0.91", …}

One shape for each connected part; the parts of one object share a `group_id`. Corners are the middles
of border pixels, which LabelMe fills with its outline. Holes are joined to their part by a bridge. Polygons have
few points, so that a person can edit them, and lie within a pixel or so of the mask (`contours.EDITABLE_PX`); exact
ones are an option. `imagePath` leads from the file to the image; of a kind that LabelMe does not open (GIF, AVIF,
JPEG 2000, TIFF of more than 8 bits) `imageData` holds the picture too, as PNG in base64.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segrl.contours import EDITABLE_PX, pixel_rings
from segrl.errors import DataError
from segrl.exports.base import Export, Found, ImageRecord, image_as_png
from segrl.files import write_atomically
from segrl.images import PictureOptions
from segrl.masks import from_rle

OPENED_BY_LABELME = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Kinds of image that LabelMe opens whatever their samples are."""

LABELME_VERSION = "5.5.0"
"""The version of the format that the files claim; LabelMe warns for another major version than its own."""


class LabelMe(Export):
    """`labelme/`."""

    name = "labelme"

    def files(self, record: ImageRecord) -> list[Path]:
        return [self.place / f"{record.name}.json"]

    def add(self, record: ImageRecord, queries: Collection[str] | None = None) -> None:
        (path,) = self.files(record)
        there = {} if queries is None else _read(path)
        kept = [one for one in there.get("shapes", []) if one.get("label") not in (queries or ())]
        new = [found for found in record.answers if queries is None or found.query in queries]
        first_group = 1 + max((one["group_id"] for one in kept if isinstance(one.get("group_id"), int)), default=0)
        tolerance_px = 0.0 if self.style.exact_polygons else EDITABLE_PX
        _write(path, record, there, [*kept, *_shapes(new, first_group, tolerance_px)], self.style.pictures)

    def move(self, old: ImageRecord, new: ImageRecord) -> None:
        """See Export. The shapes stay as they are, the path to the image changes."""
        super().move(old, new)
        (path,) = self.files(new)
        there = _read(path)
        if there and there.get("imagePath") != _way(path, new):
            _write(path, new, there, there["shapes"], self.style.pictures)

    def keep(self, old: ImageRecord, new: ImageRecord, was: Export) -> None:
        (path,) = self.files(old)
        there, gone = _read(path), set(was.queries) - set(self.queries)
        if any(one.get("label") in gone for one in there.get("shapes", [])):
            shapes = [one for one in there["shapes"] if one.get("label") not in gone]
            _write(path, new, there, shapes, self.style.pictures)


def _write(
    path: Path,
    record: ImageRecord,
    there: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]],
    pictures: PictureOptions,
) -> None:
    """Writes a file with these shapes. there: what it holds now, of which everything else is kept."""
    width, height = record.size_wh
    content = {"version": LABELME_VERSION, "flags": {}, "imageData": None, **there, "shapes": shapes}
    content |= {"imagePath": _way(path, record), "imageHeight": height, "imageWidth": width}
    image = Path(record.image)
    if content["imageData"] is None and image.suffix.lower() not in OPENED_BY_LABELME:
        content["imageData"] = base64.b64encode(image_as_png(image, pictures)).decode()
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _way(path: Path, record: ImageRecord) -> str:
    """From the file to the image."""
    return Path(os.path.relpath(record.image, path.parent)).as_posix()


def _read(path: Path) -> dict[str, Any]:
    """A file that stands there, perhaps corrected by hand; nothing if there is none. Raises DataError."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(one, dict) for one in content["shapes"]):
            raise TypeError("shapes are no objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a valid LabelMe file: remove or fix it: {error!r}") from error
    return dict(content)


def _shapes(answers: Sequence[Found], first_group: int, tolerance_px: float) -> Iterator[dict[str, Any]]:
    objects = [(found.query, *one) for found in answers for one in found.objects()]
    for group, (query, rle, score) in enumerate(objects, first_group):
        for ring in pixel_rings(from_rle(rle), tolerance_px):
            corners = np.resize(ring, (max(3, len(ring)), 2)) + 0.5  # LabelMe takes three points or more
            yield {
                "label": query,
                "points": corners.tolist(),
                "group_id": group,
                "description": "" if score is None else f"score {score:.2f}",
                "shape_type": "polygon",
                "flags": {},
            }
