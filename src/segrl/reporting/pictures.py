"""Pictures of the page: an image as a data URI, and what is drawn over it as SVG.

Everything is in pixels of the picture as shown, which may be smaller than the original; records are
in original pixels and scaled here, once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from segrl.evaluation import EvalRecord
from segrl.masks import Rle, from_rle
from segrl.training.checkpoints import Pictures
from segrl.types import ORIGINAL, Box, MaskPrompt, Point

ANSWER_RGB = (230, 159, 0)  # Okabe and Ito's orange, as --answer of the style sheet
_PNG_PIXELS = 256 * 256  # larger pictures are photographs, and go as JPEG


@dataclass(frozen=True)
class Dot:
    """A labelled point: positive points are discs with a plus, negative ones squares with a cross."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Overlay:
    """What is drawn over a picture: fill is a data URI or None; outline an SVG path; boxes as (x, y, width, height)."""

    fill: str | None
    outline: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image as shown, with the size `(width, height)` of its original."""

    image: Image.Image
    original_wh: tuple[int, int]

    @property
    def width(self) -> int:
        """Pixels across as shown."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels down as shown."""
        return self.image.height

    @property
    def unit(self) -> float:
        """A hundredth of the longer side: what dots are sized in."""
        return max(self.image.size) / 100

    @cached_property
    def uri(self) -> str:
        """The picture as a data URI."""
        if self.image.width * self.image.height <= _PNG_PIXELS:
            return _data_uri(self.image, "png")
        return _data_uri(self.image, "jpeg", quality=85)

    def truth(self, record: EvalRecord) -> Overlay:
        """The ground truth's outline."""
        return Overlay(None, outline_path(self._mask(record.truth)))

    def answer(self, record: EvalRecord) -> Overlay:
        """The answer's mask, boxes and points."""
        return self._overlay(record.mask, record.prompts)

    def turn(self, row: Mapping[str, Any]) -> Overlay:
        """The same of what stood after a turn, as `segrl.turns.to_row` has it."""
        return self._overlay(row["mask"], [MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"]])

    def _overlay(self, rle: Rle, prompts: Sequence[MaskPrompt]) -> Overlay:
        mask = self._mask(rle)
        fill = _fill(mask) if mask.any() else None
        boxes = tuple(self.box(p.box_xyxy) for p in prompts if p.box_xyxy is not None)
        return Overlay(fill, outline_path(mask), boxes, self._dots(prompts))

    def _scale(self) -> tuple[float, float]:
        return self.image.width / self.original_wh[0], self.image.height / self.original_wh[1]

    def _mask(self, rle: Rle) -> np.ndarray:
        return self.shrink(from_rle(rle))

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """A `(H, W)` bool mask of the original at the size as shown."""
        if mask.shape == (self.image.height, self.image.width):
            return mask
        return np.array(Image.fromarray(mask).resize(self.image.size, Image.Resampling.NEAREST))

    def box(self, box: Box) -> tuple[float, float, float, float]:
        """A box of the original as (x, y, width, height) as shown."""
        sx, sy = self._scale()
        return (box[0] * sx, box[1] * sy, (box[2] - box[0]) * sx, (box[3] - box[1]) * sy)

    def point(self, point: Point) -> Point:
        """A point of the original as shown."""
        sx, sy = self._scale()
        return (point[0] * sx, point[1] * sy)

    def _dots(self, prompts: Sequence[MaskPrompt]) -> tuple[Dot, ...]:
        labelled = (pair for prompt in prompts for pair in zip(prompt.points_xy, prompt.labels, strict=True))
        return tuple(Dot(*self.point(point), label == 1) for point, label in labelled)


def kept_pictures(records: Iterable[EvalRecord], kept: Pictures) -> dict[str, Picture]:
    """The pictures of some records by image id, those that were kept."""
    found = {}
    for record in records:
        image = None if record.image_id in found else kept.open(record.image_id)
        if image is not None:
            height, width = record.truth["size"]
            found[record.image_id] = Picture(image, (width, height))
    return found


def outline_path(mask: np.ndarray) -> str:
    """The pixel edges between inside and outside of a `(H, W)` bool mask as an SVG path; empty without any.

    Straight runs of edges are one stroke each. Edges on the border of the image count.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    across = _runs(np.diff(padded, axis=0)[:, 1:-1] != 0)
    down = _runs((np.diff(padded, axis=1)[1:-1, :] != 0).T)
    strokes = [f"M{x0} {y}H{x1}" for y, x0, x1 in across] + [f"M{x} {y0}V{y1}" for x, y0, y1 in down]
    return "".join(strokes)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of True along each row: (row, first column, one past the last)."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def _fill(mask: np.ndarray) -> str:
    pixels = np.zeros((*mask.shape, 4), dtype=np.uint8)
    pixels[mask] = (*ANSWER_RGB, 110)
    return _data_uri(Image.fromarray(pixels, "RGBA"), "png")


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
