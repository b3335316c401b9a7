"""The images that a report shows of a run, kept small in a directory of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segrl.devices import rank
from segrl.errors import DataError
from segrl.files import write_image

SIDE_PX = 640
"""No side of a kept picture is longer."""
EXACT_PIXELS = 256 * 256
"""Pictures of at most so many pixels are kept as they are (PNG); larger ones are photographs, and go as JPEG."""


@dataclass(frozen=True)
class Pictures:
    """Pictures by image id, whatever characters that holds."""

    directory: Path

    def save(self, image_id: str, image: Image.Image) -> None:
        """Keep a picture, made smaller where a side is above SIDE_PX; one that is there already stays."""
        if self._found(image_id) is not None:
            return
        small = image.convert("RGB")
        small.thumbnail((SIDE_PX, SIDE_PX))
        suffix = ".png" if small.width * small.height <= EXACT_PIXELS else ".jpg"
        path = self._path(image_id, suffix)
        write_image(path, small, mark=f".{rank()}", quality=85)  # PNG has no quality and takes no notice

    def open(self, image_id: str) -> Image.Image | None:
        """A kept picture, or None. Raises DataError for one that cannot be read."""
        path = self._found(image_id)
        if path is None:
            return None
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except OSError as error:
            raise DataError(f"cannot read the picture {path}: {error}") from error

    def _found(self, image_id: str) -> Path | None:
        return next((path for suffix in (".png", ".jpg") if (path := self._path(image_id, suffix)).exists()), None)

    def _path(self, image_id: str, suffix: str) -> Path:
        return self.directory / (hashlib.sha256(image_id.encode()).hexdigest()[:20] + suffix)
