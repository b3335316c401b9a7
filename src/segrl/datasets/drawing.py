"""Masks as data files hold them, drawn on the image that they belong to.

Sizes are checked before anything is drawn: a mask has at most MAX_ENLARGED times the pixels of its image, and
an example's targets at most MAX_TARGET_BYTES together. Shapes that are not COCO's are drawn as the program that owns
them draws them: each of these functions takes the shape's own values first and then what `Draw` says.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segrl.errors import DataError
from segrl.files import parse_json
from segrl.images import AS_IT_IS, SWAPS_SIDES, TURNS, ImageBytes, Picture, PictureOptions, content_id
from segrl.masks import (
    box_to_mask,
    check_corners,
    decode_segmentation,
    mask_to_box,
    read_mask,
    read_mask_values,
    segmentation_hw,
)
from segrl.types import Box, Point

MAX_STRETCH = 0.02
"""A mask of another size is scaled only where its two sides agree on the factor to this relative difference."""

MAX_ENLARGED = 16
"""A mask of more than so many times the pixels of its image is refused (small ones may have a megapixel)."""

MAX_TARGET_BYTES = 2**31
"""Targets of an example, a byte for each pixel of each."""

Draw = Callable[[tuple[int, int], str], np.ndarray]
"""(height, width) and a name for messages → `(H, W)` bool; for shapes that are not COCO's."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, in the pixels of `image_hw`.

    segmentation: as COCO writes it, or a function that draws it; None where there is no mask. box_xyxy: the
    file's own box with an exclusive maximum, None where it has none. image_hw: None for shapes that are drawn
    at whatever size the image has. is_box: what is drawn is a box that stands for a mask.
    """

    id: Any
    segmentation: Any
    box_xyxy: Box | None
    image_hw: tuple[int, int] | None
    is_box: bool = False

    @classmethod
    def from_coco(cls, annotation: Mapping[str, Any], image_hw: tuple[int, int], name: str = "") -> Instance:
        """An entry of `annotations`. Raises DataError, calling it `name`, for a box that is none."""
        box = annotation.get("bbox")
        xyxy = xywh_to_xyxy(box, name or f"annotation {annotation['id']}") if box else None
        return cls(annotation["id"], annotation.get("segmentation"), xyxy, image_hw)


def xywh_to_xyxy(box: Any, name: str) -> Box:
    """COCO's `[x, y, width, height]` as `(x1, y1, x2, y2)` with an exclusive maximum. Raises DataError."""
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} has no box of four numbers: {box!r:.60}") from error
    return (x, y, x + width, y + height)


class Canvas:
    """A picture, and where masks of its data set lie on it. hw: (height, width) of the upright image."""

    def __init__(self, picture: Picture, pictures: PictureOptions = AS_IT_IS) -> None:
        self.image, self.name, self.hw = picture.image, picture.name, picture.hw
        self._orientation, self._is_stored = picture.orientation, pictures.masks == "stored"
        self.drawn_hw = picture.stored_hw if self._is_stored else picture.hw
        """The size in which shapes without a size of their own are drawn."""
        limit = max(MAX_ENLARGED * self.hw[0] * self.hw[1], 2**20)
        self._mask_pictures = replace(pictures, page=None, full_scale=None, max_megapixels=limit / 1e6)

    @property
    def content_id(self) -> str:
        """See `images.content_id`."""
        return content_id(self.image)

    def fitting(self, mask_hw: tuple[int, int], name: str, *, scale: bool = True) -> Callable[[np.ndarray], np.ndarray]:
        """How a mask of `mask_hw` (height, width) is brought to the upright image, decided before it is drawn.

        One of the image's size stays as it is. One that was drawn on stored pixels (so said by
        `PictureOptions.masks`, or shown by its sides where EXIF swaps them) is turned with them. Another size of the
        same proportions is scaled (nearest pixel), as the field's evaluation scripts do, unless `scale` is
        False. Raises DataError naming mask and image for anything else.
        """
        height, width = self.drawn_hw
        is_swapped = self._orientation in SWAPS_SIDES and mask_hw == (width, height)
        turn = TURNS.get(self._orientation) if self._is_stored or (is_swapped and mask_hw != self.hw) else None
        if mask_hw == self.drawn_hw or (turn is not None and not self._is_stored):
            return lambda mask: mask if turn is None else np.asarray(_as_image(mask).transpose(turn)) > 0
        factors = height / mask_hw[0], width / mask_hw[1]
        fits = abs(factors[0] / factors[1] - 1) <= MAX_STRETCH and scale
        if not fits or mask_hw[0] * mask_hw[1] > max(MAX_ENLARGED * height * width, 2**20):
            raise DataError(
                f"the mask {name} is {mask_hw[1]}×{mask_hw[0]} pixels "
                f"but its image {Path(self.name).name} is {width}×{height}"
            )

        def scaled(mask: np.ndarray) -> np.ndarray:
            image = _as_image(mask).resize((width, height), Image.Resampling.NEAREST)
            return np.asarray(image if turn is None else image.transpose(turn)) > 0

        return scaled

    def fit(self, mask: np.ndarray, name: str, *, scale: bool = True) -> np.ndarray:
        """A `(H, W)` bool mask at the size of the upright image; see `fitting`."""
        return self.fitting((mask.shape[0], mask.shape[1]), name, scale=scale)(mask)

    def mask_values(self, file: Path) -> np.ndarray:
        """`masks.read_mask_values`, of a file that is not too large for this image."""
        return read_mask_values(file, self._mask_pictures)

    def written(self, written: Any, root: Path, where: str) -> np.ndarray:
        """A mask as a row of a data set holds it, `(H, W)` bool at the size of the upright image.

        COCO's run lengths or polygons (also as JSON text), the path of a mask file under `root`, the file
        itself as `{"bytes": …, "path": …}` (as the `datasets` library holds images), or rows of true and
        false. Raises DataError naming `where` for anything else.
        """
        written, path = _parsed(written, where), mask_file(written, where)
        name = f"of {where}"
        if path is not None:
            return self.fit(read_mask(root / path, self._mask_pictures), name)
        if isinstance(written, Mapping) and "bytes" in written:
            if not isinstance(written["bytes"], bytes):
                raise DataError(f"{where} has a mask whose bytes are none, but {written['bytes']!r:.60}")
            return self.fit(read_mask(ImageBytes(written["bytes"], name), self._mask_pictures), name)
        if _is_dense(written, self.drawn_hw):
            return self.fit(_dense(written, where), name)
        fitted = self.fitting(segmentation_hw(written, self.drawn_hw, where), name)
        return fitted(decode_segmentation(written, self.drawn_hw, where))

    def instances(self, instances: Sequence[Instance]) -> tuple[np.ndarray, tuple[Box, ...]]:
        """`(N, H, W)` bool masks of the instances that have a pixel, and the box of each in original pixels.

        The boxes are the file's own; where it has none, or is in other pixels than the upright image's, a
        mask's tight box. Raises DataError naming the annotation that cannot be drawn.
        """
        masks, boxes = [], []
        for instance in instances:
            name = f"annotation {instance.id} of {Path(self.name).name}"
            mask = self.instance(instance, name)
            box = mask_to_box(mask)
            if box is None:
                continue
            masks.append(mask)
            is_own = instance.box_xyxy and instance.image_hw == self.hw and not self._is_stored
            boxes.append(instance.box_xyxy if is_own and instance.box_xyxy else box)
        return stack(masks, self.hw, f"the targets of {Path(self.name).name}"), tuple(boxes)

    def instance(self, instance: Instance, name: str) -> np.ndarray:
        """One instance as `(H, W)` bool at the size of the upright image; its filled box without a segmentation."""
        segmentation, hw = instance.segmentation, instance.image_hw or self.drawn_hw
        if segmentation is None and instance.box_xyxy is not None:
            return self.fitting(hw, name)(box_to_mask(checked_box(instance.box_xyxy, hw, name), hw))
        if callable(segmentation):
            return self.fitting(hw, name)(segmentation(hw, name))
        return self.fitting(segmentation_hw(segmentation, hw, name), name)(decode_segmentation(segmentation, hw, name))


def checked_box(box: Box, image_hw: tuple[int, int], name: str) -> Box:
    """A box that has an area and a part in its image of (height, width). Raises DataError naming it."""
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and x1 < image_hw[1] and y1 < image_hw[0] and x2 > 0 and y2 > 0):  # nor NaN
        raise DataError(f"{name} has the box {box}, outside its image of {image_hw[1]}×{image_hw[0]}")
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(image_hw[1])), min(y2, float(image_hw[0])))


def stack(masks: Sequence[np.ndarray], image_hw: tuple[int, int], name: str = "the targets") -> np.ndarray:
    """`(H, W)` masks as `(N, H, W)` bool, those without a pixel left out; N = 0 for none.

    Raises DataError, calling them `name`, for more than MAX_TARGET_BYTES.
    """
    seen = [mask for mask in masks if mask.any()]
    if len(seen) * image_hw[0] * image_hw[1] > MAX_TARGET_BYTES:
        raise DataError(f"{name}: {len(seen)} masks of {image_hw[1]}×{image_hw[0]} pixels are too many for one example")
    return np.stack(seen) if seen else np.zeros((0, *image_hw), dtype=bool)


def mask_file(written: Any, where: str) -> str | None:
    """The path of the file that holds a mask; None for a mask that stands in the row itself.

    Raises DataError naming `where` for text that begins as JSON and is none.
    """
    written = _parsed(written, where)
    if isinstance(written, Mapping) and "bytes" in written and written["bytes"] is None:
        return str(written.get("path"))
    return written if isinstance(written, str) else None


def _parsed(written: Any, where: str) -> Any:
    """JSON text as what it says, everything else as it is."""
    if not isinstance(written, str) or not written.lstrip().startswith(("{", "[")):
        return written
    return parse_json(written, f"{where} has a mask that cannot be read:")


def _is_dense(written: Any, image_hw: tuple[int, int]) -> bool:
    """Whether it is rows of pixels, and not polygons: rows of bools, or as many rows and columns as the image has."""
    if not isinstance(written, Sequence) or not written or not isinstance(written[0], Sequence):
        return False
    row = written[0]
    return bool(row) and (isinstance(row[0], bool) or (len(written), len(row)) == image_hw)


def _dense(written: Any, where: str) -> np.ndarray:
    try:
        mask = np.array(written, dtype=bool)
    except ValueError as error:
        raise DataError(f"{where} has a mask whose rows differ in length") from error
    if mask.ndim != 2:
        raise DataError(f"{where} has a mask of {mask.ndim} dimensions, not rows of pixels")
    return mask


def _as_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8))


def union(parts: Sequence[Draw], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """Several shapes as one."""
    mask = np.zeros(image_hw, dtype=bool)
    for part in parts:
        mask |= part(image_hw, name)
    return mask


def outlined_by_pillow(points: Sequence[float], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A polygon (x, y, … in pixels) filled with its outline, as LabelMe fills it (`labelme.utils.shape_to_mask`)."""
    (corners,) = check_corners([points], image_hw, name)
    drawn = Image.new("1", image_hw[::-1])
    ImageDraw.Draw(drawn).polygon([(float(x), float(y)) for x, y in corners], outline=1, fill=1)
    return np.array(drawn)


def outlined_by_opencv(shares: Sequence[float], image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A polygon (x, y, … as shares of width and height) filled with its outline, as Ultralytics fills it.

    Corners are cut to whole pixels (`ultralytics.data.utils.polygon2mask`).
    """
    import cv2

    (corners,) = check_corners([scaled(shares, image_hw)], image_hw, name)
    drawn = np.zeros(image_hw, dtype=np.uint8)
    cv2.fillPoly(drawn, [corners.astype(np.int32)], 1)
    return drawn.astype(bool)


def scaled(shares: Sequence[float], image_hw: tuple[int, int]) -> list[float]:
    """x, y, … as shares of width and height → pixels."""
    return [share * image_hw[1 - i % 2] for i, share in enumerate(shares)]


def ellipse(centre: Point, radii: tuple[float, float], degrees: float, hw: tuple[int, int], name: str) -> np.ndarray:
    """The pixels whose centres lie in an ellipse that is turned by `degrees` clockwise; all in pixels."""
    corners = [centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]]
    check_corners([corners], hw, name)
    if not (radii[0] > 0 and radii[1] > 0 and math.isfinite(degrees)):
        raise DataError(f"{name} has an ellipse without an area")
    ys, xs = np.ogrid[: hw[0], : hw[1]]
    dx, dy = xs + np.float32(0.5 - centre[0]), ys + np.float32(0.5 - centre[1])
    cos, sin = np.float32(math.cos(math.radians(degrees))), np.float32(math.sin(math.radians(degrees)))
    along, across = (dx * cos + dy * sin) / np.float32(radii[0]), (dy * cos - dx * sin) / np.float32(radii[1])
    return np.asarray(along**2 + across**2 <= 1)


def filled_box(shares: Box, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A box given as shares of width and height."""
    x1, y1, x2, y2 = scaled(shares, image_hw)
    return box_to_mask(checked_box((x1, y1, x2, y2), image_hw, name), image_hw)


def pasted(data: str, corner: Point, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """A mask file in base64 whose top-left pixel lies at `corner`; what lies outside the image is cut off."""
    try:
        file = ImageBytes(base64.b64decode(data, validate=True), f"of {name}")
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name} has a mask that is no base64") from error
    part = read_mask(file, PictureOptions(max_megapixels=max(image_hw[0] * image_hw[1] / 1e6, 0.001)))
    mask = np.zeros(image_hw, dtype=bool)
    check_corners([corner], image_hw, name)
    x, y = (math.floor(value + 0.5) for value in corner)
    inside = part[max(-y, 0) : image_hw[0] - y, max(-x, 0) : image_hw[1] - x]
    mask[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
    return mask
