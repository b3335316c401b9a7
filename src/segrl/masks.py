"""Bool masks to and from files and the field's exchange formats.

Inside segrl a mask is `bool`, `(H, W)` or `(N, H, W)`; 0/255 occurs only in `read_mask` and `png_bytes`.
What comes from outside is checked before memory is taken for it: a mask's size against a limit, run lengths
against their size, corners against the image. Drawing polygons takes at most 100 bytes for each pixel.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
from PIL import Image

from segrl.contours import edge_rings
from segrl.errors import DataError
from segrl.images import AS_IT_IS, PictureOptions, open_image
from segrl.srgb import deep_samples
from segrl.types import Box

MAX_PIXELS = 2**28
"""A mask that belongs to no image that is known has at most so many pixels."""


class Rle(TypedDict):
    """COCO's compressed run-length encoding: `size` is [height, width], `counts` an ASCII string."""

    size: list[int]
    counts: str


def to_rle(mask: np.ndarray) -> Rle:
    """`(H, W)` bool → compressed RLE, equal to pycocotools' with `counts` as text."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def from_rle(rle: Mapping[str, Any], name: str = "the mask", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """COCO's run lengths, compressed (`counts` is text) or not (a list of numbers) → `(H, W)` bool.

    Raises DataError, naming the mask by `name`, for a size that is none or exceeds `max_pixels`, and for
    counts that cannot be read or do not fill the size.
    """
    height, width = rle_hw(rle, name, max_pixels)
    runs = _runs(rle.get("counts"), (height, width), name)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T  # COCO's runs go down the columns


def _runs(counts: Any, hw: tuple[int, int], name: str) -> np.ndarray:
    """The lengths of the runs, which fill the size."""
    runs = _compressed_runs(counts, name) if isinstance(counts, str | bytes) else _plain_runs(counts, name)
    pixels = hw[0] * hw[1]
    if runs.min(initial=0) < 0 or runs.max(initial=0) > pixels or runs.sum() != pixels:
        raise DataError(f"{name} has run lengths that do not add up to {hw[0]}×{hw[1]} pixels")
    return runs


def rle_hw(rle: Mapping[str, Any], name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The (height, width) that run lengths claim. Raises DataError for none, and for more than `max_pixels`."""
    size = rle.get("size")
    if not isinstance(size, Sequence) or len(size) != 2 or not all(_is_count(side) and side > 0 for side in size):
        raise DataError(f"{name} has run lengths without counts or a size [height, width]")
    height, width = (int(side) for side in size)
    if height * width > max_pixels:
        raise DataError(f"{name} claims a size of {width}×{height} pixels, more than the {max_pixels} that it may have")
    return height, width


def _is_count(value: Any) -> bool:
    """Whether it is a whole number that a 64-bit one holds."""
    whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
    return whole and abs(value) < 2**62


def _plain_runs(counts: Any, name: str) -> np.ndarray:
    if not isinstance(counts, Sequence | np.ndarray) or not all(map(_is_count, counts)):
        raise DataError(f"{name} has run lengths without counts that are text or a list of whole numbers")
    return np.asarray(counts, dtype=np.int64)


def _compressed_runs(counts: str | bytes, name: str) -> np.ndarray:
    """The runs of COCO's text: five bits a character, the lowest first, each after the third less the one two before.

    Source: rleFrString of pycocotools (common/maskApi.c).
    """
    text = counts.encode("ascii", errors="replace") if isinstance(counts, str) else counts
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(digits) == 0:
        return digits
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if digits.min() < 0 or digits.max() > 63 or len(ends) == 0 or ends[-1] != len(digits) - 1 or lengths.max() > 7:
        raise DataError(f"{name} has compressed run lengths that cannot be read")
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << places, starts)
    runs -= np.where(digits[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def mask_to_box(mask: np.ndarray) -> Box | None:
    """The box of a `(H, W)` bool mask: `(x_min, y_min, x_max + 1, y_max + 1)`; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(xs) == 0:
        return None
    return (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))


def box_to_mask(box: Box, image_hw: tuple[int, int]) -> np.ndarray:
    """A filled box (original pixels, exclusive maximum) as a `(H, W)` bool mask.

    A pixel belongs to it if its centre does, and a box with a fraction of a pixel still has one.
    """
    mask = np.zeros(image_hw, dtype=bool)
    (x1, x2), (y1, y2) = _span(box[0], box[2], image_hw[1]), _span(box[1], box[3], image_hw[0])
    mask[y1:y2, x1:x2] = True
    return mask


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and one-past-last index of the pixels whose centres lie in [low, high); else the one in its middle."""
    first, last = max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), size)
    if first < last:
        return first, last
    middle = min(max(int((low + high) / 2), 0), size - 1)
    return middle, middle + 1


def polygons_to_mask(
    polygons: Sequence[Sequence[float]], image_hw: tuple[int, int], name: str = "the mask"
) -> np.ndarray:
    """COCO polygons (`[x1, y1, x2, y2, …]` each, pixels) → their union as `(H, W)` bool, as pycocotools draws it.

    Fewer than three corners, or an odd count of numbers, enclose nothing. Raises DataError as `check_corners`.
    """
    from pycocotools import mask as coco

    # Four numbers are a box to pycocotools.
    rings = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not rings:
        return np.zeros(image_hw, dtype=bool)
    rings = [corners.ravel().tolist() for corners in check_corners(rings, image_hw, name)]
    return coco.decode(coco.merge(coco.frPyObjects(rings, *image_hw))).astype(bool)


def check_corners(
    polygons: Iterable[Sequence[float]], image_hw: tuple[int, int], name: str = "the mask"
) -> list[np.ndarray]:
    """Polygons as `(K, 2)` float64 corners (x, y), fit to be drawn on an image of `image_hw` (height, width).

    Raises DataError for corners that are no finite numbers, that lie farther outside the image than its own
    side, and for outlines so long that they cannot be an object's.
    """
    height, width = image_hw
    rings, length = [], 0.0
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{name} has a polygon that is no list of numbers") from error
        far = ~((corners >= (-width, -height)) & (corners <= (2 * width, 2 * height))).all(axis=1)
        if far.any():
            x, y = corners[far.argmax()]
            raise DataError(
                f"{name} has a corner at ({x:g}, {y:g}), which is far outside its image of {width}×{height}"
            )
        length += float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1, initial=0).sum())
        rings.append(corners)
    if length > height * width / 2 + 100 * (height + width) + 10_000:
        raise DataError(f"{name} has an outline of {length:.0f} pixels, too long for its image of {width}×{height}")
    return rings


def segmentation_hw(segmentation: Any, image_hw: tuple[int, int], name: str) -> tuple[int, int]:
    """The (height, width) in which a COCO segmentation is drawn: that of its run lengths, else `image_hw`."""
    return rle_hw(segmentation, name) if isinstance(segmentation, Mapping) else image_hw


def decode_segmentation(
    segmentation: Any, image_hw: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A COCO segmentation as a `(H, W)` bool mask; all False where it encloses no pixel.

    Polygons (`[[x1, y1, …], …]` or one `[x1, y1, …]`) are drawn at `image_hw`, several parts as their union.
    Run lengths bring their own size. Raises DataError naming the annotation by `name` for anything else, for
    hostile numbers (`from_rle`, `check_corners`), and for more than `max_pixels` pixels.
    """
    if isinstance(segmentation, Mapping):
        return from_rle(segmentation, name, max_pixels)
    if image_hw[0] * image_hw[1] > max_pixels:
        raise DataError(f"{name} belongs to an image of {image_hw[1]}×{image_hw[0]} pixels, more than {max_pixels}")
    return polygons_to_mask(_polygons(segmentation, name), image_hw, name)


def check_segmentation(segmentation: Any, image_hw: tuple[int, int], name: str) -> bool:
    """Whether a COCO segmentation may enclose a pixel: False for no polygon, one wholly outside, and no run.

    Raises DataError for whatever `decode_segmentation` would refuse; draws nothing.
    """
    if isinstance(segmentation, Mapping):
        return bool(_runs(segmentation.get("counts"), rle_hw(segmentation, name), name)[1::2].any())
    rings = [part for part in _polygons(segmentation, name) if len(part) >= 6 and len(part) % 2 == 0]
    height, width = image_hw
    return any(
        corners.min(axis=0)[0] < width and corners.min(axis=0)[1] < height and (corners.max(axis=0) > 0).all()
        for corners in check_corners(rings, image_hw, name)
    )


def _polygons(segmentation: Any, name: str) -> Sequence[Sequence[float]]:
    """The parts of a segmentation that is no run lengths: one polygon, or a list of them."""
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str | bytes):
        raise DataError(f"{name} has no segmentation that is polygons or run lengths: {segmentation!r:.80}")
    parts = [segmentation] if segmentation and isinstance(segmentation[0], int | float) else segmentation
    if not all(isinstance(part, Sequence) and not isinstance(part, str) for part in parts):
        raise DataError(f"{name} has a polygon that is no list of numbers")
    return parts


def mask_to_polygons(mask: np.ndarray, tolerance_px: float = 0.0) -> list[list[float]]:
    """`(H, W)` bool → COCO polygons, one for each connected part; none for an empty mask.

    `polygons_to_mask` gives the mask again, pixel for pixel; with a tolerance (`contours.simplify`) what it gives
    differs within so many pixels of the mask's border. They run along the edges between pixels, and holes are
    joined by bridges that enclose nothing (`contours`).
    """
    return [[float(value) for value in ring.ravel()] for ring in edge_rings(mask, tolerance_px)]


def png_bytes(mask: np.ndarray) -> bytes:
    """A `(H, W)` bool mask as an 8-bit grey PNG: 0 is background, 255 the object."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


MANY_VALUES = 100
"""A label image with more values than this is none: it has smoothed edges, or is a picture."""


def read_mask(path: Path | str | BinaryIO, pictures: PictureOptions = AS_IT_IS) -> np.ndarray:
    """A mask file → `(H, W)` bool; `target_of` its values. Raises DataError as `read_mask_values`."""
    values, is_labels = _read_values(path, pictures)
    return target_of(values, is_labels, str(path))


def target_of(values: np.ndarray, is_labels: bool = False, name: str = "the mask") -> np.ndarray:
    """`(H, W)` integers → `(H, W)` bool: the pixels that belong to a target.

    Labels (palette indices, colours; greys of which none exceeds half of full scale) are target where they
    are not 0, other greys by `over_half`. Raises DataError for dark greys that are too many to be labels.
    """
    if is_labels:
        return values > 0
    bright = over_half(values)
    if bright.any() or not values.any():
        return bright
    largest = int(values.max())
    if len(present := np.unique(values)) > MANY_VALUES:
        raise DataError(f"{name} holds {len(present)} values up to {largest}: too dark for a mask, too many for labels")
    return values > 0


def over_half(values: np.ndarray) -> np.ndarray:
    """`(H, W)` integers → `(H, W)` bool: over half of full scale, which is 1, 255 or 65535: the smallest that
    no value exceeds."""
    largest = values.max(initial=0)
    return values > (0 if largest <= 1 else 127 if largest <= 255 else 32767)


def read_mask_values(path: Path | str | BinaryIO, pictures: PictureOptions = AS_IT_IS) -> np.ndarray:
    """A mask file → `(H, W)` int32: greys and palette indices as they stand.

    Of a picture with transparency that varies, the alpha (0 to 255). Colours are numbered from 1 in the order
    of their value, with 0 for black. Floats of 0 to 1 are scaled to 255. Raises DataError naming the file if it
    is missing, no image, too large, or has more colours than labels can be.
    """
    return _read_values(path, pictures)[0]


def _read_values(path: Path | str | BinaryIO, pictures: PictureOptions) -> tuple[np.ndarray, bool]:
    """The values, and whether they are labels for certain."""
    name = f"the mask {path}"
    with open_image(path, name, pictures) as image:
        deep = deep_samples(image, name)
        if deep is not None:
            return _of_colours(deep[..., :3], name)
        image.load()
        if image.mode in ("P", "1"):
            return np.array(image, dtype=np.int32), True
        if image.mode == "L" or image.mode.startswith("I"):
            return np.array(image, dtype=np.int32), False
        if image.mode == "F":
            return _of_floats(np.asarray(image), name), False
        if "A" in image.getbands():
            alpha = np.array(image.getchannel("A"), dtype=np.int32)
            if alpha.min() != alpha.max():
                return alpha, False
        return _of_colours(np.asarray(image.convert("RGB")), name)


def _of_floats(values: np.ndarray, name: str) -> np.ndarray:
    if not (values.min() >= 0 and values.max() <= 65535):  # NaN is neither
        raise DataError(f"{name} holds numbers that are negative, too large or not finite")
    return np.rint(values * 255 if values.max() <= 1 else values).astype(np.int32)


def _of_colours(values: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    spread = values.max(axis=2) - values.min(axis=2)
    if spread.max() <= _NOISE:
        return values[..., 1].astype(np.int32), False
    packed = values.astype(np.int64) @ np.array([2**32, 2**16, 1])
    colours, labels = np.unique(packed, return_inverse=True)
    if len(colours) > MANY_VALUES:
        raise DataError(
            f"{name} holds {len(colours)} colours: a mask has a colour for each target, and black elsewhere"
        )
    return (labels.reshape(packed.shape) + (colours[0] != 0)).astype(np.int32), True


_NOISE = 16
"""Channels that differ by no more are a grey that was stored in colours and compressed."""


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """Masks of one image at a bit a pixel, for answers that wait: to be written, or for others to vote with.

    packed: one uint8 array for each mask, as `np.packbits` makes it. hw: height and width of the image.
    """

    packed: tuple[np.ndarray, ...]
    hw: tuple[int, int]

    @classmethod
    def of(cls, masks: np.ndarray) -> PackedMasks:
        """Of `(N, H, W)` bool."""
        height, width = masks.shape[-2:]
        return cls(tuple(np.packbits(mask) for mask in masks), (height, width))

    @property
    def nothing(self) -> np.ndarray:
        """`(0, H, W)` bool, which stands where the masks were. (An empty slice of them would hold their memory.)"""
        return np.zeros((0, *self.hw), dtype=bool)

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each mask in turn as `(H, W)` bool, made when it is asked for."""
        for one in self.packed:
            yield np.unpackbits(one, count=self.hw[0] * self.hw[1]).reshape(self.hw).view(bool)

    @property
    def union(self) -> np.ndarray:
        """`(H, W)` bool: all masks as one."""
        whole = np.zeros(self.hw, dtype=bool)
        for mask in self:
            whole |= mask
        return whole

    @property
    def nbytes(self) -> int:
        """The memory of all of them."""
        return sum(one.nbytes for one in self.packed)
