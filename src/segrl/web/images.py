"""Images that strangers send, decoded within limits and kept a while."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image

from segrl.errors import DataError
from segrl.images import FORMATS, PictureOptions, TooManyPixels, content_id, open_image, read_image
from segrl.recent import Recent
from segrl.web.errors import Refused, invalid

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
    pictures, name = PictureOptions(max_megapixels=max_pixels / 1e6), "that was sent"
    try:
        with open_image(io.BytesIO(data), name, pictures) as opened:
            width, height = opened.size
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise invalid(f"image: {width}×{height} is too narrow; one side is over {MAX_ASPECT} times the other")
        return read_image(io.BytesIO(data), name, pictures)
    except TooManyPixels as error:
        raise Refused(413, "too_many_pixels", str(error)) from error
    except DataError as error:
        raise Refused(422, "not_an_image", f"image: not a readable {', '.join(FORMATS)} file") from error


class RecentImages:
    """The images used last, at most `max_bytes` of pixels, by their content. For several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._kept = Recent[Image.Image](max_bytes, lambda image: 3 * image.width * image.height)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, image: Image.Image) -> str:
        """The image's id, under which `get` finds it while it is kept."""
        key = content_id(image)
        self._kept.put(key, image)
        return key

    def get(self, key: str) -> Image.Image:
        """The image. Raises Refused(404) if it is not kept (any more)."""
        image = self._kept.get(key)
        if image is None:
            raise Refused(404, "unknown_image", "image_id: not known here (any more); send the image again")
        return image
