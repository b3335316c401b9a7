"""segrl segment -: one picture from standard input, what was found to standard output."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import typer

from segrl import overlay
from segrl.errors import SegrlError
from segrl.log_filters import quieten
from segrl.masks import png_bytes
from segrl.pipeline import Result

FORMATS = ("png", "cutout", "overlay")
"""What a single picture can be written as, all of them PNG."""


def pipe(query: str, formats: Sequence[str], model: Mapping[str, Any], min_area: int) -> None:
    """Reads the picture, asks about it, writes one file. An answer that cannot be read ends with status 1."""
    from segrl import pipeline

    if len(formats) > 1 or not set(formats) <= set(FORMATS):
        raise SegrlError(f"to standard output goes one of {', '.join(FORMATS)}, not {', '.join(formats)}")
    data = sys.stdin.buffer.read()
    if not data:
        raise SegrlError("there is no picture on standard input")
    quieten()
    result = pipeline.load(**model).segment(data, query)
    if result.status.is_failure:
        raise SegrlError(f"the answer could not be read ({result.status.value}): {result.answer.detail or result.text}")
    kept = [mask for mask in result.masks if mask.sum() >= min_area]
    if not kept:
        typer.echo("segrl: nothing was found", err=True)
    masks = np.stack(kept) if kept else result.masks[:0]
    sys.stdout.buffer.write(_file(result, masks, formats[0] if formats else "png"))
    sys.stdout.buffer.flush()


def _file(result: Result, masks: np.ndarray, kind: str) -> bytes:
    union = np.asarray(masks.any(axis=0))
    if kind == "png":
        return png_bytes(union)
    drawn = overlay.cutout(result.image, union) if kind == "cutout" else overlay.draw(result.image, masks)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()
