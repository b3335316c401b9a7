"""Pictures: image files, and whatever else a user holds, as upright 8-bit sRGB; the identity of their content.

The one reader behind every data set, command and server. A file's size is checked before memory is taken;
reading takes at most 24 bytes for each pixel that the file says it has, beside the file itself.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile

from segrl.errors import DataError, SegrlError, warn_once
from segrl.srgb import deep_samples, file_to_srgb, to_srgb
from segrl.text import first_line

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
"""What is decoded; Pillow's other readers, some of which start programs, are never reached."""

_SUFFIXES = "jpg jpeg jfif png bmp webp tif tiff gif avif jp2 j2k ppm pgm"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""File names that are taken for images in a folder."""

MAX_MEGAPIXELS = 179.0
"""Larger pictures are refused unless `PictureOptions.max_megapixels` is raised; Pillow's own limit."""

# EXIF orientations, and the turn that brings the stored pixels upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS_SIDES = frozenset({5, 6, 7, 8})


class TooManyPixels(DataError):
    """An image that has more pixels than may be read."""


class ImageBytes(io.BytesIO):
    """The bytes of an image file that has no path, under a name for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PictureOptions:
    """What the reader is told where a file alone does not say it.

    page: which of several pages or frames, from 0; None reads the first and says so once. full_scale: the
    sample that is white in files of more than 8 bits or of floats; None takes what the file declares, or the
    smallest of `srgb.FULL_SCALES` that no sample exceeds. max_megapixels: larger pictures are refused. masks:
    "stored" says that a data set's masks were drawn on the stored pixels of photographs that EXIF turns;
    "upright" that they were drawn as the photograph is shown. Raises DataError for other values.
    """

    page: int | None = None
    full_scale: float | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    masks: Literal["upright", "stored"] = "upright"

    def __post_init__(self) -> None:
        if self.page is not None and (type(self.page) is not int or self.page < 0):
            raise DataError(f"pictures.page is a whole number from 0, not {self.page!r}")
        for name in ("full_scale", "max_megapixels"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
            if not is_number and not (name == "full_scale" and value is None):
                raise DataError(f"pictures.{name} is a number above 0, not {value!r}")
        if self.masks not in ("upright", "stored"):
            raise DataError(f"pictures.masks is upright or stored, not {self.masks!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> PictureOptions:
        """The options as a recipe has them. Raises DataError for an unknown one, listing those there are."""
        known = [field.name for field in fields(cls)]
        if not isinstance(options, Mapping):
            raise DataError(f"pictures takes {', '.join(known)}, not {options!r:.60}")
        for name in options:
            if name not in known:
                raise DataError(f"pictures has no option {name!r}; it has {', '.join(known)}")
        return cls(**options)


AS_IT_IS = PictureOptions()


@dataclass(frozen=True)
class Picture:
    """image: upright RGB. orientation: the EXIF orientation of the stored pixels, 1 to 8. name: for messages."""

    image: Image.Image
    orientation: int
    name: str

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return (self.image.height, self.image.width)

    @property
    def stored_hw(self) -> tuple[int, int]:
        """(height, width) of the pixels as they are stored."""
        return self.hw[::-1] if self.orientation in SWAPS_SIDES else self.hw


def read_image(
    file: Path | str | BinaryIO, name: str | None = None, pictures: PictureOptions = AS_IT_IS
) -> Image.Image:
    """An image file as RGB, upright; see `read_picture`."""
    return read_picture(file, name, pictures).image


def read_picture(file: Path | str | BinaryIO, name: str | None = None, pictures: PictureOptions = AS_IT_IS) -> Picture:
    """An image file as upright 8-bit RGB in sRGB, EXIF orientation applied.

    Deep samples (10 to 16 bits, floats) are scaled by what the file declares, else by what it holds, which is
    said once. Transparency is laid over white. A colour profile is converted to sRGB. Raises DataError naming
    the file (by `name` for one without a path) if it is missing, no image of FORMATS, cut short, or holds
    samples whose scale cannot be told; TooManyPixels above `pictures.max_megapixels`.
    """
    name = str(name or file)
    with open_image(file, name, pictures) as image:
        deep = deep_samples(image, name, pictures.page or 0)
        orientation = _orientation(image)
        pixels = file_to_srgb(image, deep, name, pictures.full_scale)
        return Picture(_upright(pixels, image), orientation, name)


def is_turned_in_place(file: Path) -> bool:
    """Whether EXIF turns or mirrors a photograph without changing its sides, so that no size can tell of it.

    Reads the beginning of the file only. Raises DataError as `read_picture`.
    """
    with open_image(file, str(file)) as image:
        if image.format == "PNG" and "exif" not in image.info:
            return False  # which Pillow would decode to be sure
        orientation = _orientation(image)
        return orientation != 1 and (orientation not in SWAPS_SIDES or image.width == image.height)


def as_image(image: Image.Image | Path | str | bytes | np.ndarray, pictures: PictureOptions = AS_IT_IS) -> Image.Image:
    """Whatever a user holds, as RGB with its EXIF orientation applied.

    A path, the bytes of an image file, a PIL image, or an array `(H, W)` or `(H, W, 3)` of uint8 in
    RGB order. Raises DataError for anything else and for a URL, which segrl never opens.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image, pictures)
    if isinstance(image, bytes):
        return read_image(io.BytesIO(image), "of those bytes", pictures)
    if isinstance(image, np.ndarray):
        grey_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not grey_or_rgb or image.size == 0:
            raise DataError(f"an image array is uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
        return Image.fromarray(image).convert("RGB")
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise DataError(f"segrl does not open URLs: download {image} and pass the file")
    return read_image(image, pictures=pictures)


def to_rgb(image: Image.Image, pictures: PictureOptions = AS_IT_IS) -> Image.Image:
    """An open PIL image as `read_picture` gives a file."""
    name = str(getattr(image, "filename", "") or "in memory")
    return _upright(to_srgb(image, name, pictures.full_scale), image)


def content_id(image: Image.Image) -> str:
    """32 hexadecimal digits that are equal exactly for images of equal mode, size and pixels."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def open_image(
    file: Path | str | BinaryIO, name: str, pictures: PictureOptions = AS_IT_IS
) -> Iterator[ImageFile.ImageFile]:
    """An image file, identified, its size checked, turned to its page; no pixel is decoded yet.

    Whatever goes wrong with the file within the block is a DataError of one line that names it.
    """
    try:
        with _binary(file) as stream:
            image = _identified(stream, name)
            _check_size(image.size, name, pictures)
            with _lifted_limit(image.size):
                _turn_to_page(image, name, pictures)
                _check_size(image.size, name, pictures)
                yield image
    except SegrlError:
        raise
    except Exception as error:  # decoders raise anything on broken bytes, struct.error and KeyError included
        raise DataError(f"cannot read the image {name}: {first_line(error)}") from error


@contextmanager
def _binary(file: Path | str | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(file, Path | str):
        with open(file, "rb") as stream:
            yield stream
    else:
        yield file


def _identified(stream: BinaryIO, name: str) -> ImageFile.ImageFile:
    """`Image.open` without its limit, which is one for the whole process: `_check_size` has ours."""
    Image.init()
    stream.seek(0)
    prefix = stream.read(48)
    if not prefix:
        raise DataError(f"cannot read the image {name}: it is empty")
    for kind in FORMATS:
        factory, accepts = Image.OPEN[kind]
        if accepts is None or accepts(prefix) is True:
            stream.seek(0)
            try:
                return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                raise DataError(f"cannot read the image {name}: a broken {kind} file ({first_line(error)})") from error
    raise DataError(f"cannot read the image {name}: {_what_it_is(prefix)}")


def _what_it_is(prefix: bytes) -> str:
    if prefix.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file: run git lfs pull"
    if prefix[4:8] == b"ftyp" and prefix[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC is not read: save it as JPEG or PNG"
    known = ", ".join(kind for kind in FORMATS if kind != "DIB")
    return f"it is none of {known}"


def _check_size(size_wh: tuple[int, int], name: str, pictures: PictureOptions) -> None:
    width, height = size_wh
    if min(size_wh) < 1:
        raise DataError(f"cannot read the image {name}: it says that it has {width}×{height} pixels")
    megapixels = width * height / 1e6
    if megapixels > pictures.max_megapixels:
        raise TooManyPixels(
            f"the image {name} has {width}×{height} pixels, {megapixels:.0f} megapixels; "
            f"at most {pictures.max_megapixels:g} are read: make it smaller, or raise max_megapixels"
        )


_LIMIT = RLock()


@contextmanager
def _lifted_limit(size_wh: tuple[int, int]) -> Iterator[None]:
    """Pillow's limit, which some of its decoders test again, out of the way for a picture that we have admitted."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or size_wh[0] * size_wh[1] <= limit:
        yield
        return
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _turn_to_page(image: ImageFile.ImageFile, name: str, pictures: PictureOptions) -> None:
    if pictures.page is not None:
        try:
            image.seek(pictures.page)
        except EOFError:
            raise DataError(f"the image {name} has no page {pictures.page}, counted from 0") from None
    elif getattr(image, "is_animated", False) and image.format != "MPO":  # whose others are previews and depths
        warn_once(
            "pages",
            f"{name} has several pages or frames: the first is used, here and in other files (option page)",
        )


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in TURNS else 1


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """`pixels`, which lie as those of `source`, turned as it says; TIFF's reader has turned them already."""
    turn = TURNS.get(_orientation(source))
    return pixels if turn is None else pixels.transpose(turn)
