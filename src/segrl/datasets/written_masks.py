"""A mask in any of the ways in which a row of a data set may hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segrl.errors import DataError
from segrl.images import ImageBytes
from segrl.masks import decode_segmentation, read_mask


def read_written_mask(written: Any, image_hw: tuple[int, int], root: Path, where: str) -> np.ndarray:
    """A `(H, W)` bool mask, in the size in which it is written.

    COCO's run lengths or polygons (also as JSON text), the path of a mask file under `root`, the file
    itself as `{"bytes": …, "path": …}` (as the `datasets` library holds images; over half of its range is
    the target), or rows of true and false. Raises DataError naming `where` for anything else.
    """
    written, path = _parsed(written, where), mask_file(written, where)
    if path is not None:
        return read_mask(root / path)
    if isinstance(written, Mapping) and "bytes" in written:
        if not isinstance(written["bytes"], bytes):
            raise DataError(f"{where} has a mask whose bytes are none, but {written['bytes']!r:.60}")
        return read_mask(ImageBytes(written["bytes"], f"of {where}"))
    if _is_dense(written, image_hw):
        try:
            return np.array(written, dtype=bool)
        except ValueError as error:
            raise DataError(f"{where} has a mask whose rows differ in length") from error
    return decode_segmentation(written, image_hw, where)


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
    try:
        return json.loads(written)
    except ValueError as error:
        raise DataError(f"{where} has a mask that is no JSON: {error}") from error


def _is_dense(written: Any, image_hw: tuple[int, int]) -> bool:
    """Whether it is rows of pixels, and not polygons: rows of bools, or as many rows and columns as the image has."""
    if not isinstance(written, Sequence) or not written or not isinstance(written[0], Sequence):
        return False
    row = written[0]
    return bool(row) and (isinstance(row[0], bool) or (len(written), len(row)) == image_hw)
