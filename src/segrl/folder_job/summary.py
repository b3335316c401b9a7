"""What a run over a folder did, and what its folder holds now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segrl.exports import Found, ImageRecord


@dataclass
class Tally:
    """Answers to one query: images asked, with something found, objects, "nothing there", repaired, not readable.

    nothing: the model said so, or all objects were smaller than asked for.
    """

    images: int = 0
    found: int = 0
    objects: int = 0
    nothing: int = 0
    repaired: int = 0
    unread: int = 0

    def add(self, answer: Found) -> None:
        """Counts one answer."""
        self.images += 1
        self.found += bool(answer.masks)
        self.objects += len(answer.masks)
        self.nothing += not answer.masks and not answer.status.is_failure
        self.repaired += bool(answer.repairs)
        self.unread += answer.status.is_failure


@dataclass
class Summary:
    """What a run did, and what its folder holds now.

    new, skipped: images answered now, and before. broken: what is wrong with each image that could not be
    used. tallies: by query, over all runs. files: what each format wrote, by its name. pruned_images,
    pruned_queries: what left the folder.
    """

    new: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    pruned_images: int = 0
    pruned_queries: list[str] = field(default_factory=list)


def count(records: Iterable[ImageRecord]) -> dict[str, Tally]:
    """A tally for each query."""
    tallies: dict[str, Tally] = {}
    for record in records:
        for found in record.answers:
            tallies.setdefault(found.query, Tally()).add(found)
    return tallies
