"""The rollout viewer: the logged groups of a run as the data that the page's script draws.

Bounded: steps are taken from both ends inward, halving the gaps, until the budget is spent. What is
left out is counted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segrl.masks import from_rle, to_rle
from segrl.reporting.pictures import Picture
from segrl.training.checkpoints import Pictures

BUDGET_BYTES = 6_000_000
"""Size of the viewer's data; the first step is shown however large it is."""
SIDE_PX = 384
"""No side of a shown picture, and of the masks drawn over it, is longer."""
TEXT_CHARS = 4000
"""A longer text of a completion is cut."""
BLANK = (111, 106, 99)  # the style sheet's colour behind pictures

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Viewer:
    """data: for the script (`pictures`: data URIs; `groups`: see `_group`); shown and logged: numbers of groups."""

    data: dict[str, Any]
    shown: int
    logged: int


def viewer(rows: Sequence[Row], pictures: Pictures, budget_bytes: int = BUDGET_BYTES) -> Viewer | None:
    """The viewer of the rows of a rollouts.jsonl; None without rows."""
    by_step: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_step[row["step"]].append(row)
    if not by_step:
        return None
    uris: dict[str, str] = {}
    groups: list[dict[str, Any]] = []
    spent = 0
    for step in outside_in(sorted(by_step)):
        drawn = [(row, _picture(row, pictures)) for row in by_step[step]]
        made = [_group(row, picture) for row, (picture, _) in drawn]
        new = {row["image_id"]: picture.uri for row, (picture, kept) in drawn if kept and row["image_id"] not in uris}
        spent += len(json.dumps(made)) + sum(map(len, new.values()))
        if groups and spent > budget_bytes:
            break
        groups += made
        uris |= new
    order = {image_id: i for i, image_id in enumerate(uris)}
    for group in groups:
        group["picture"] = order.get(group["picture"])
    groups.sort(key=lambda group: (group["step"], group["group"]))
    return Viewer({"pictures": list(uris.values()), "groups": groups}, len(groups), len(rows))


def outside_in(steps: Sequence[int]) -> Iterator[int]:
    """The first, the last, the middle, the quarters …: any beginning is spread over the whole.

    >>> list(outside_in([1, 2, 3, 4, 5]))
    [1, 5, 3, 2, 4]
    """
    done: set[int] = set()
    parts = 1
    while len(done) < len(steps):
        for place in np.linspace(0, len(steps) - 1, parts + 1).astype(int).tolist():
            if place not in done:
                done.add(place)
                yield steps[place]
        parts *= 2


def _picture(row: Row, pictures: Pictures) -> tuple[Picture, bool]:
    """The group's picture as shown, and whether it was kept; a blank one where it was not."""
    height, width = row["image_hw"]
    kept = pictures.open(row["image_id"])
    image = Image.new("RGB", (width, height), BLANK) if kept is None else kept
    image.thumbnail((SIDE_PX, SIDE_PX))
    return Picture(image, (width, height)), kept is not None


def _group(row: Row, picture: Picture) -> dict[str, Any]:
    """One group for the script; numbers in pixels of the picture as shown, masks as runs down its columns."""
    height, width = row["image_hw"]
    truth = np.zeros((height, width), dtype=bool)
    for rle in row["truth"]:
        truth |= from_rle(rle)
    return {
        "step": row["step"],
        "group": row["group"],
        "example": row["example_id"],
        "query": row["query"],
        "kind": row["tags"].get("kind"),
        "picture": row["image_id"],
        "wh": [picture.width, picture.height],
        "truth": _runs(picture, truth),
        "completions": [_completion(one, picture) for one in row["completions"]],
    }


def _completion(row: Row, picture: Picture) -> dict[str, Any]:
    return {
        **_said(row, picture),
        "status": row["status"],
        "outside": row.get("outside", False),
        "turns": [{**_said(turn, picture), "move": turn["move"]} for turn in row.get("turns", ())],
        "terms": {name: _short(value) for name, value in row["terms"].items()},
        "reward": _short(row["reward"]),
        "advantage": _short(row["advantage"]),
    }


def _said(row: Row, picture: Picture) -> dict[str, Any]:
    """A text with what stands of it: of a whole completion, or of one turn."""
    reasoning, closed, answer = row["text"].rpartition("</think>")
    boxes = [picture.box(prompt["box_xyxy"]) for prompt in row["prompts"] if prompt["box_xyxy"] is not None]
    labelled = [pair for p in row["prompts"] for pair in zip(p["points_xy"], p["labels"], strict=True)]
    return {
        "reasoning": reasoning.replace("<think>", "").strip()[:TEXT_CHARS] if closed else "",
        "answer": answer.strip()[:TEXT_CHARS],
        "tokens": row["tokens"],
        "iou": _short(row["iou"]),
        "boxes": [[_short(value) for value in box] for box in boxes],
        "points": [[*map(_short, picture.point(xy)), label] for xy, label in labelled],
        "mask": _runs(picture, from_rle(row["mask"])),
    }


def _runs(picture: Picture, mask: np.ndarray) -> str:
    return to_rle(picture.shrink(mask))["counts"] if mask.any() else ""


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
