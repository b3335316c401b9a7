"""What a diagnosis needs of a logged group, a few numbers instead of texts and masks; and what it yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segrl.masks import Rle, from_rle, mask_to_box
from segrl.types import Box


@dataclass(frozen=True)
class CompletionFacts:
    """One completion. area: share of the image under its mask; boxes: shares of the sides, 0–1; outside: whether it
    writes numbers beyond the image; terms: as paid, without weights, None where one does not apply."""

    status: str
    iou: float
    area: float
    boxes: tuple[Box, ...]
    n_points: int
    outside: bool
    terms: Mapping[str, float | None]
    advantage: float | None

    @property
    def names_something(self) -> bool:
        """Whether it could be read and names an object."""
        return self.status == "ok"


@dataclass(frozen=True)
class GroupFacts:
    """The completions of one query. truth_area: share of the image under its targets; truth_boxes: one per target."""

    step: int
    query: str
    kind: str | None
    truth_area: float
    truth_boxes: tuple[Box, ...]
    completions: tuple[CompletionFacts, ...]


def facts(row: Mapping[str, Any]) -> GroupFacts:
    """A row of rollouts.jsonl, reduced. Raises KeyError for what is none."""
    height, width = row["image_hw"]
    truths = [from_rle(rle) for rle in row["truth"]]
    boxes = [box for mask in truths if (box := mask_to_box(mask)) is not None]
    union = sum(int(mask.sum()) for mask in truths)  # targets of one query hardly overlap
    return GroupFacts(
        step=row["step"],
        query=row["query"],
        kind=row["tags"].get("kind"),
        truth_area=min(1.0, union / (height * width)),
        truth_boxes=tuple(_share(box, width, height) for box in boxes),
        completions=tuple(_completion(one, width, height) for one in row["completions"]),
    )


def _completion(row: Mapping[str, Any], width: int, height: int) -> CompletionFacts:
    prompts = row["prompts"]
    boxes = [prompt["box_xyxy"] for prompt in prompts if prompt["box_xyxy"] is not None]
    return CompletionFacts(
        status=row["status"],
        iou=row["iou"],
        area=_area(row["mask"]) / (height * width),
        boxes=tuple(_share(box, width, height) for box in boxes),
        n_points=sum(len(prompt["points_xy"]) for prompt in prompts),
        outside=row.get("outside", False),  # runs of earlier versions did not say
        terms=row["terms"],
        advantage=row["advantage"],
    )


def _area(rle: Rle) -> int:
    return int(from_rle(rle).sum())


def _share(box: Sequence[float], width: int, height: int) -> Box:
    return (box[0] / width, box[1] / height, box[2] / width, box[3] / height)


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run. name: for machines; evidence: the numbers; advice: what to change."""

    name: str
    title: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.title} ({self.name}). {self.evidence} {self.advice}"
