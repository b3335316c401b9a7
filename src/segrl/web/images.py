"""Images that strangers send: decoded within limits, and kept a while so that they need not be sent again."""

from __future__ import annotations

import base64
import binascii
import io
from collections import OrderedDict

from PIL import Image

from segrl.images import content_id, to_rgb
from segrl.web.errors import Refused, invalid

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded; Pillow's other readers are never reached."""

MAX_ASPECT = 200
"""The longest side over the shortest; policies of the Qwen family take nothing narrower."""


def from_base64(text: str) -> bytes:
    """The bytes of a base64 text or of a `data:` address. Raises Refused(422); no other address is opened."""
    if text[:8].lower().startswith(("http:", "https:", "file:", "s3:", "ftp:")):
        raise invalid("image: this server fetches no addresses; send the image itself, as base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("image: not base64") from error


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first picture of an image file as RGB, upright.

    Its size is read and checked before any pixel is decoded. Raises Refused: 413 for too many
    pixels, 422 for what is no image, cut short or too narrow.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            return to_rgb(image)
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(413, "too_many_pixels", f"the image has more than {max_pixels} pixels") from error
    except Exception as error:  # decoders raise anything on hostile bytes, MemoryError and struct.error included
        raise Refused(422, "not_an_image", f"image: not a readable {', '.join(FORMATS)} file") from error


def _check_size(size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        detail = f"the image has {width}×{height} pixels; this server takes {max_pixels}"
        raise Refused(413, "too_many_pixels", detail)
    if max(size_wh) > MAX_ASPECT * min(size_wh):
        raise invalid(f"image: {width}×{height} is too narrow; one side is over {MAX_ASPECT} times the other")


class RecentImages:
    """The images used last, at most `max_bytes` of pixels, by their content."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.nbytes = max_bytes, 0
        self._kept: OrderedDict[str, Image.Image] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, image: Image.Image) -> str:
        """The image's id, under which `get` finds it while it is kept."""
        key = content_id(image)
        if key not in self._kept:
            self._kept[key] = image
            self.nbytes += _nbytes(image)
        self._kept.move_to_end(key)
        while self.nbytes > self.max_bytes:
            self.nbytes -= _nbytes(self._kept.popitem(last=False)[1])
        return key

    def get(self, key: str) -> Image.Image:
        """The image. Raises Refused(404) if it is not kept (any more)."""
        if key not in self._kept:
            raise Refused(404, "unknown_image", "image_id: not known here (any more); send the image again")
        self._kept.move_to_end(key)
        return self._kept[key]


def _nbytes(image: Image.Image) -> int:
    return 3 * image.width * image.height
