"""Whether the measured examples were trained on: by their id, and by the pixels of their images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from segrl.datasets.rows import spread
from segrl.evaluation.records import EvalRecord
from segrl.files import write_atomically
from segrl.types import Example

COMPARED = 1000
"""How many training examples are read for the comparison, spread evenly; all of a smaller set."""


@dataclass(frozen=True)
class Overlap:
    """Counts of examples: measured; trained (the whole training set); compared (those of it that were read).

    same_image: measured ones whose image has the pixels of a compared one. same_id: those with its id, not its
    pixels.
    """

    measured: int
    trained: int
    compared: int
    same_image: int
    same_id: int = 0

    @property
    def is_held_out(self) -> bool:
        """Whether no measured image was found among those trained on."""
        return self.same_image == 0

    @property
    def warning(self) -> str:
        """What a result must say where images were trained on; empty where none was found."""
        if self.is_held_out:
            return ""
        counted = "" if self.compared == self.trained else "at least "
        share = self.same_image / self.measured
        return (
            f"measured on training images: {counted}{self.same_image} of {self.measured} examples ({share:.0%}) show "
            "an image that the policy was trained on, so these numbers do not say how it does on new images"
        )

    @property
    def note(self) -> str:
        """How it was compared, where that leaves something open; else empty."""
        notes = []
        if self.compared < self.trained:
            notes.append(f"{self.compared} of {self.trained} training examples were compared by their pixels")
        if self.same_id:
            notes.append(f"{self.same_id} measured examples have the id of a training example, with other pixels")
        return "; ".join(notes)


def words(overlap: Overlap | None, noun: str = "examples") -> str:
    """What measured examples may be called: "held-out" only where that was looked at and holds."""
    if overlap is None:
        return noun
    if overlap.is_held_out:
        return f"held-out {noun}"
    all_of_them = overlap.same_image == overlap.measured
    return f"training {noun}" if all_of_them else f"{noun} ({overlap.same_image} with training images)"


def overlap(trained: Sequence[Example], measured: Iterable[EvalRecord], *, limit: int = COMPARED) -> Overlap:
    """Compares records with the training examples, of which at most `limit` are read; views of one count as its own."""
    places = spread(len(trained), limit)
    ids, images = set[str](), set[str]()
    for place in places:
        example = trained[place]
        ids.add(example.id.partition("~")[0])
        images.add(example.image_id)
    records = list(measured)
    shared = [record.image_id in images for record in records]
    named = sum(record.id in ids and not same for record, same in zip(records, shared, strict=True))
    return Overlap(len(records), len(trained), len(places), sum(shared), named)


def write_overlap(found: Overlap, path: Path) -> None:
    """Writes it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(found)) + "\n")


def read_overlap(path: Path) -> Overlap | None:
    """What `write_overlap` wrote; None where the examples were not compared."""
    return Overlap(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
