"""Selecting by doubt: the images of a folder by how sure their answers are, and the most doubtful for an annotator.

    review/review.jsonl         a line for each image, the most doubtful first
    review/label-studio/, review/labelme/      drafts to correct, of these images alone

An answer that could not be read counts as the most doubtful. Files of LabelMe that are there are left as they are:
somebody may have corrected them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segrl import exports
from segrl.errors import SegrlError
from segrl.exports import ImageRecord
from segrl.files import json_line, make_directory, write_atomically
from segrl.folder_job.records import Records
from segrl.folder_job.worker import Plan

REVIEW, FORMATS = "review", ("label-studio", "labelme")


class ByDoubt:
    """The records with the least sure first, then those of which nothing is known, in the order of their names.

    What is held in memory is a number for each image.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        known = [(one.confidence, one.image) for one in records]
        self._order = [image for confidence, image in sorted(known, key=_doubt)]
        self.n_known = sum(confidence is not None for confidence, _ in known)

    def __iter__(self) -> Iterator[ImageRecord]:
        for image in self._order:
            found = self._records.get(image)
            assert found is not None  # it is one of the records
            yield found


def _doubt(known: tuple[float | None, str]) -> float:
    return float("inf") if known[0] is None else known[0]


def write_review(records: ByDoubt, plan: Plan, count: int) -> Path:
    """Writes the `count` most doubtful images under `review/` in the plan's folder; returns it.

    Raises SegrlError where no answer has a confidence.
    """
    if records.n_known == 0:
        raise SegrlError(
            "no answer has a confidence to be sorted by: ask for a vote (--samples 8), or take a segmenter that scores "
            "its masks"
        )
    place = plan.out / REVIEW
    make_directory(place)
    chosen = [one for one, _ in zip(records, range(count), strict=False) if one.confidence is not None]
    for name in FORMATS:
        writer = exports.get(name)(place, plan.queries, plan.style)
        for record in chosen:
            if not writer.is_there(record):
                writer.add(record)
        writer.finish(chosen)
    write_atomically(place / "review.jsonl", [json_line(_line(record)) for record in chosen])
    return place


def _line(record: ImageRecord) -> dict[str, object]:
    answers: Sequence[dict[str, object]] = [
        {
            "query": found.query,
            "status": found.status.value,
            "confidence": found.confidence,
            "objects": found.confidences,
        }
        for found in record.answers
    ]
    return {"image": record.image, "confidence": record.confidence, "answers": answers}
