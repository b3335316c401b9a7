"""Run lengths: a JSON line for each answer that could be read, which `datasets.load("jsonl")` reads.

    {"image": "/data/photos/a/dog.jpg", "query": "the dog",
     "masks": [{"size": [480, 640], "counts": "…"}], "tags": {"status": "ok"}, "scores": [0.91]}

Masks are COCO's compressed run lengths, one per object. No masks say that nothing is there, so an
answer that could not be read has no line: it stands in results.jsonl alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segrl.exports.base import Export
from segrl.exports.record import ImageRecord
from segrl.files import json_line, write_atomically


class RleLines(Export):
    """`rle.jsonl`."""

    name = "rle"

    @property
    def place(self) -> Path:
        """See Export."""
        return self.out / "rle.jsonl"

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        """See Export."""
        rows = (
            {
                "image": record.image,
                "query": found.query,
                "masks": list(found.masks),
                "tags": {"status": found.status.value},
                **({} if found.scores is None else {"scores": list(found.scores)}),
            }
            for record in records
            for found in record.answers
            if not found.status.is_failure
        )
        write_atomically(self.place, map(json_line, rows))
        return self.place
