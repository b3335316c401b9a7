"""YOLO segmentation, as Ultralytics trains on it: `labels/NAME.txt` and `images/NAME.jpg` for each image, `data.yaml`.

    0 0.250781 0.301042 0.250781 0.417708 0.389844 0.417708

is the class (the place of the query) and x, y of each corner as a share of width and height. Corners
lie on border pixels, which is what OpenCV fills, and with it Ultralytics and supervision; a quarter of
a pixel off their corner, so that readers that round (supervision) and readers that cut (Ultralytics)
find the same pixel. The format has one ring per line: an object in several parts has a line for each,
a hole is joined to its part. It has no place for scores. Nothing found is an empty file.

The images are copies: Ultralytics rewrites a JPEG that it finds damaged, and an original is nobody's to change. One
of a kind that it does not read is written as PNG. `data.yaml` names no `path`: Ultralytics then starts from the folder
that the file lies in, wherever it is moved. `train` and `val` are the same pictures, because drafts are split when
they are corrected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from segrl.contours import pixel_rings
from segrl.errors import DataError
from segrl.exports.base import Export, Found, ImageRecord, image_as_png
from segrl.files import write_atomically, write_bytes
from segrl.images import PictureOptions
from segrl.masks import from_rle

QUARTER = 0.25
"""Pixels from a pixel's corner to the written point: rounded and cut, it is the same pixel."""


READ_BY_ULTRALYTICS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Kinds of image that every version of it takes."""


class Yolo(Export):
    """`yolo/data.yaml`, `yolo/images/` and `yolo/labels/`."""

    name = "yolo"

    def files(self, record: ImageRecord) -> list[Path]:
        suffix = Path(record.image).suffix
        kind = suffix if suffix.lower() in READ_BY_ULTRALYTICS else ".png"
        return [self.place / "labels" / f"{record.name}.txt", self.place / "images" / f"{record.name}{kind}"]

    def add(self, record: ImageRecord, queries: Collection[str] | None = None) -> None:
        """See Export. Raises DataError if the image is gone."""
        labels, image = self.files(record)
        new = {self.class_of[query] for query in (self.queries if queries is None else queries)}
        kept = [] if queries is None else [line for line in _read(labels) if _class(line) not in new]
        if queries is None or not image.exists():
            write_bytes(image, _copy(Path(record.image), image.suffix, self.style.pictures))
        write_atomically(labels, [*kept, *self._lines(record, new)])

    def keep(self, old: ImageRecord, new: ImageRecord, was: Export) -> None:
        """See Export. The classes get other numbers, so the labels are written anew, over what was corrected."""
        labels, _ = self.files(old)
        if labels.exists():
            write_atomically(labels, self._lines(new, self.class_of.values()))

    def _lines(self, record: ImageRecord, classes: Collection[int]) -> Iterator[str]:
        for found in record.answers:
            if self.class_of[found.query] in classes:
                yield from _lines(found, self.class_of[found.query])

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        import yaml

        content = {"train": "images", "val": "images", "nc": len(self.queries), "names": list(self.queries)}
        write_atomically(self.place / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
        return self.place


def _copy(image: Path, suffix: str, pictures: PictureOptions) -> bytes:
    """The bytes of an image file, or what we read of it as PNG."""
    if image.suffix == suffix:
        try:
            return image.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the image {image}: {error.strerror}") from error
    return image_as_png(image, pictures)


def _read(labels: Path) -> list[str]:
    """The lines of a file that stands there, perhaps corrected by hand."""
    return labels.read_text(encoding="utf-8").splitlines(keepends=True) if labels.exists() else []


def _class(line: str) -> int | None:
    first = line.partition(" ")[0]
    return int(first) if first.isdecimal() else None


def _lines(found: Found, place: int) -> Iterator[str]:
    for rle in found.masks:
        size_hw = np.array(rle["size"])
        for ring in pixel_rings(from_rle(rle)):
            corners = np.resize(ring, (max(3, len(ring)), 2))  # a line of fewer than three would be a box
            shares = (corners + QUARTER) / size_hw[::-1]
            yield f"{place} {' '.join(f'{share:.6f}' for share in shares.ravel())}\n"
