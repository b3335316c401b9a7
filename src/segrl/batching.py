"""How many (image, query) pairs are open and answered together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segrl.errors import DataError, SegrlError
from segrl.images import AS_IT_IS, PictureOptions, as_image

ImageLike = Image.Image | Path | str | bytes | np.ndarray
BatchSize = int | Literal["auto"]
Opened = tuple[Image.Image | SegrlError, str]
"""An image, or why it could not be read, and the query about it."""

EMPTY_QUERY = DataError("the query is empty: say what to find")

OPEN_PIXELS = 2**27
"""Pixels of the images that are open at once (400 MB), whatever the batch."""


class Batch:
    """A batch of `size` pairs, fewer once the device has run out of memory."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise SegrlError(f"a batch has at least one image and query, not {size}: give a number above 0, or auto")
        self.size = size

    def took(self, pairs: int, seconds: float) -> None:
        """Told how long a batch took."""

    def shrink(self, failed: int) -> None:
        """Told that a batch of `failed` pairs did not fit."""
        self.size = max(1, failed // 2)


class AutoBatch(Batch):
    """Doubles for as long as that answers at least `GAIN` times as many pairs a second.

    It begins with one pair, and never grows again once it has run out of memory. Another batch size
    can change the last bit of a sum, and so now and then a word of an answer.
    """

    LARGEST, GAIN = 64, 1.15

    def __init__(self) -> None:
        super().__init__(1)
        self._rate, self._grows = 0.0, True

    def took(self, pairs: int, seconds: float) -> None:
        """See Batch. A batch that was not full teaches nothing."""
        if not self._grows or pairs < self.size:
            return
        rate = pairs / max(seconds, 1e-9)
        if rate < self.GAIN * self._rate:
            self._grows, self.size = False, max(1, self.size // 2)
        else:
            self._rate, self.size = rate, min(2 * self.size, self.LARGEST)
            self._grows = self.size > pairs

    def shrink(self, failed: int) -> None:
        """See Batch."""
        super().shrink(failed)
        self._grows = False


def opened(pairs: Iterable[tuple[ImageLike, str]], pictures: PictureOptions = AS_IT_IS) -> Iterator[Opened]:
    """The pairs with their images read; a path that stands several times in a row is read once."""
    last: Path | str | None = None
    for source, query in pairs:
        if last is None or not isinstance(source, Path | str) or source != last:
            image = _read(source, pictures)
            last = source if isinstance(source, Path | str) else None
        yield (image if query.strip() else EMPTY_QUERY), query


def checked_query(query: str) -> str:
    """The query. Raises DataError for an empty one."""
    if not query.strip():
        raise EMPTY_QUERY
    return query


def _read(source: ImageLike, pictures: PictureOptions) -> Image.Image | SegrlError:
    try:
        return as_image(source, pictures)
    except SegrlError as error:
        return error


def windows(pairs: Iterator[Opened], batch: Batch) -> Iterator[list[Opened]]:
    """The pairs in lists of `batch.size`, which may change from one to the next, and of at most OPEN_PIXELS."""
    for first in pairs:
        window, pixels = [first], _pixels(first)
        while len(window) < batch.size and pixels < OPEN_PIXELS and (more := next(pairs, None)):
            window.append(more)
            pixels += _pixels(more)
        yield window


def _pixels(pair: Opened) -> int:
    image = pair[0]
    return 0 if isinstance(image, SegrlError) else image.width * image.height
