"""Into which parts a result is taken apart: what the request was like, and what it was about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segrl.evaluation.records import EvalRecord

QUERY_WORDS: tuple[tuple[int | None, str], ...] = (
    (3, "1–3 words"),
    (7, "4–7 words"),
    (15, "8–15 words"),
    (None, "16 words or more"),
)
OBJECT_SIZE: tuple[tuple[float | None, str], ...] = (
    (0.01, "under 1% of the image"),
    (0.05, "1–5%"),
    (0.2, "5–20%"),
    (None, "20% or more"),
)
NOTHING = "nothing there"

TITLES = {
    "kind": "kind",
    "query_length": "length of the request",
    "object_size": "size of the object",
    "objects": "number of objects",
    "place": "place in the image",
}
"""The dimensions in the order of the tables; further tags of the data set come after them, under their own names."""

ORDER = {
    "query_length": [name for _, name in QUERY_WORDS],
    "object_size": [NOTHING, *(name for _, name in OBJECT_SIZE)],
    "objects": ["none", "1", "2", "3", "4 or more"],
}
"""Parts in their natural order; those of other dimensions stand by name."""


def slices(record: EvalRecord) -> Mapping[str, str]:
    """The part of each dimension that a record belongs to.

    `query_length`, `object_size` (share of the pixels that count), `objects`, `place` (which ninth of the
    image holds the centre of the true box), and the data set's tags. What is not known is left out.
    """
    found = {"query_length": _length(len(record.query.split()))}
    pixels, targets = record.measures.get("pixels"), record.measures.get("targets")
    if pixels:
        share = record.target_area / pixels
        found["object_size"] = NOTHING if record.target_area == 0 else _below(share)
    if targets is not None:
        found["objects"] = "none" if targets == 0 else f"{targets:.0f}" if targets < 4 else "4 or more"
    return found | {"place": _place(record)} | dict(record.tags)


def _length(words: int) -> str:
    return next(name for bound, name in QUERY_WORDS if bound is None or words <= bound)


def _below(share: float) -> str:
    return next(name for bound, name in OBJECT_SIZE if bound is None or share < bound)


def _place(record: EvalRecord) -> str:
    """Which ninth of the image holds the centre of the true box, read from the run lengths without drawing them."""
    from pycocotools import mask as coco

    height, width = record.truth["size"]
    x, y, w, h = coco.toBbox({"size": [height, width], "counts": record.truth["counts"].encode("ascii")})
    if w == 0 or h == 0:
        return NOTHING
    row = ("top", "middle", "bottom")[min(int(3 * (y + h / 2) / height), 2)]
    column = ("left", "centre", "right")[min(int(3 * (x + w / 2) / width), 2)]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
