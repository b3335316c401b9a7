"""Findings in rollouts.jsonl: a logged group reduced to a few numbers, and functions from groups to a finding or None.

`other_frame` asks whether a policy's boxes look as if their numbers were in another frame: numbers of a smaller frame
crowd into the upper left of the image, numbers of a larger one lie beyond it. If one factor brings most boxes onto the
true ones, that is said too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.coordinates import box_ious
from segrl.masks import from_rle, mask_to_box
from segrl.types import Box

if TYPE_CHECKING:
    from segrl.evaluation import EvalRecord


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
        area=int(from_rle(row["mask"]).sum()) / (height * width),
        boxes=tuple(_share(box, width, height) for box in boxes),
        n_points=sum(len(prompt["points_xy"]) for prompt in prompts),
        outside=row.get("outside", False),  # runs of earlier versions did not say
        terms=row["terms"],
        advantage=row["advantage"],
    )


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


QUARTER, TRUE_QUARTER = 0.6, 0.3
"""Share of the boxes that lie in the upper left quarter, where at most this share of the true ones does."""
OUTSIDE = 0.3
"""Share of the answers that write numbers beyond the image."""
SCALES = np.geomspace(1 / 8, 8, 61)
MUCH_BETTER, GOOD_IOU, LIKE_ONE = 0.15, 0.4, 1.15
"""A factor speaks for another frame if boxes times it gain so much IoU, reach so much, and it is not nearly one."""


def other_frame(groups: Sequence[GroupFacts], enough: int) -> str | None:
    """The evidence as a sentence or two; None where there is none, and with fewer than `enough` answers."""
    named = [one for group in groups for one in group.completions if one.names_something or one.outside]
    if len(named) < enough:
        return None
    share = sum(one.outside for one in named) / len(named)
    beyond = f"{share:.0%} of the answers write numbers beyond the image." if share > OUTSIDE else None
    return " ".join(filter(None, (beyond, _crowded(groups, enough), _factor(groups, enough)))) or None


def _crowded(groups: Sequence[GroupFacts], enough: int) -> str | None:
    boxes = [box for group in groups for one in group.completions for box in one.boxes]
    truths = [box for group in groups for box in group.truth_boxes]
    if len(boxes) < enough:
        return None
    share, true_share = (sum(box[2] <= 0.5 and box[3] <= 0.5 for box in some) / len(some) for some in (boxes, truths))
    if share < QUARTER or true_share > TRUE_QUARTER:
        return None
    return f"{share:.0%} of the boxes lie in the upper left quarter, and {true_share:.0%} of the true ones."


def _factor(groups: Sequence[GroupFacts], enough: int) -> str | None:
    """What one factor for all boxes would gain, over answers with one box about one target."""
    pairs = [
        (one.boxes[0], group.truth_boxes[0])
        for group in groups
        for one in group.completions
        if len(one.boxes) == 1 and len(group.truth_boxes) == 1
    ]
    if len(pairs) < enough:
        return None
    said, true = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    means = [float(np.mean(box_ious(said * scale, true))) for scale in SCALES]
    best = int(np.argmax(means))
    as_is, scale = float(np.mean(box_ious(said, true))), float(SCALES[best])
    if 1 / LIKE_ONE < scale < LIKE_ONE or means[best] < GOOD_IOU or means[best] - as_is < MUCH_BETTER:
        return None
    return (
        f"Times {scale:.1f} the boxes would meet the true ones with a mean IoU of {means[best]:.2f}, not {as_is:.2f}."
    )


Groups = Sequence[GroupFacts]

GROUPS, ENOUGH_GROUPS, ENOUGH_ANSWERS = 40, 8, 20
"""Logged groups that are judged, and how many groups or answers a finding needs."""

MOST = 0.5
"""Share of groups whose answers are all right, or all wrong."""
RIGHT_IOU, WRONG_IOU = 0.9, 0.05
GROWN = 2.0
"""Factor by which a number of points runs away; its inverse is a collapse."""
FULL_AREA, TRUTH_AREA = 0.95, 0.5
"""A mask over so much of the image is full, where the truth covers at most so much."""
SAME_IOU, SAME_SHARE = 0.9, 0.8
"""Boxes are the same from this IoU with their median box on, and all say the same from this share on."""
PAYS = 0.1
"""By how much of its range a term must pay degenerate masks more than others."""


def wrong_frame(groups: Groups) -> Finding | None:
    """Coordinates that look as if they were in another frame."""
    evidence = other_frame([group for group in groups[-GROUPS:] if group.truth_boxes], ENOUGH_ANSWERS)
    if evidence is None:
        return None
    return Finding(
        "wrong_frame",
        "Coordinates look as if they were in another frame",
        evidence,
        "Set policy.frame (and input_wh) to the numbers that this policy writes: docs/conventions.md has the frame of "
        "each family.",
    )


def pays_degenerate(groups: Groups) -> Finding | None:
    """A term pays answers whose mask is empty, or fills the image, more than the other answers."""
    judged = [group for group in groups[-GROUPS:] if 0 < group.truth_area <= TRUTH_AREA]
    terms = list(dict.fromkeys(term for group in judged for one in group.completions for term in one.terms))
    for name, holds in (("empty", _is_empty), ("full", _is_full)):
        them = [one for group in judged for one in group.completions if holds(one)]
        others = [one for group in judged for one in group.completions if not (_is_empty(one) or _is_full(one))]
        paying = [term for term in terms if _pays_more(term, them, others)]
        if paying and len(them) >= ENOUGH_ANSWERS // 4 and len(others) >= ENOUGH_ANSWERS // 4:
            return _degenerate(name, paying, them, others)
    return None


def always_wrong(groups: Groups) -> Finding | None:
    """Most queries, or all of one kind, are answered wrongly every time."""
    share, judged = _share_of_groups(groups, _is_wrong)
    if share is None:
        return None
    kinds = [kind for kind in dict.fromkeys(group.kind for group in judged) if kind and _all_wrong(judged, kind)]
    if share <= MOST and not kinds:
        return None
    wrong = [group for group in judged if all(map(_is_wrong, group.completions))]
    queries = ", ".join(f"“{query}”" for query in list(dict.fromkeys(group.query for group in wrong))[:3])
    of_kind = f"; no answer to the kinds {', '.join(kinds)} is right" if kinds else ""
    return Finding(
        "always_wrong",
        "Most queries are always wrong" if share > MOST else "Whole kinds of query are always wrong",
        f"In {share:.0%} of the last {len(judged)} logged groups no answer has an IoU above {WRONG_IOU}{of_kind}; "
        f"for instance {queries}.",
        "Look at such a group in the rollouts: wrong frame, wrong ground truth, or too hard; begin with easier queries "
        "or a cold start, or raise num_generations.",
    )


def always_right(groups: Groups) -> Finding | None:
    """Most queries are answered rightly every time: nothing is left to learn from them."""
    share, judged = _share_of_groups(groups, lambda one: one.iou >= RIGHT_IOU)
    if share is None or share <= MOST:
        return None
    return Finding(
        "always_right",
        "Most queries are always right",
        f"In {share:.0%} of the last {len(judged)} logged groups every answer has an IoU of {RIGHT_IOU} or more.",
        "Train on harder queries, or leave out those that the policy gets right every time.",
    )


def points_run(groups: Groups) -> Finding | None:
    """The number of points per answer has doubled or halved since the beginning."""
    counts = [one.n_points for group in groups for one in group.completions if one.names_something]
    reach = min(100, len(counts) // 2)
    if reach < ENOUGH_ANSWERS:
        return None
    first, last = float(np.mean(counts[:reach])), float(np.mean(counts[-reach:]))
    if abs(last - first) < 1 or 1 / GROWN < last / max(first, 0.5) < GROWN:
        return None
    grew = last > first
    return Finding(
        "points_run_away" if grew else "points_collapse",
        "Points run away" if grew else "Points collapse",
        f"Answers went from {first:.1f} points in the first logged groups to {last:.1f} in the last.",
        "Add the term number_of_points, which pays for a range of them"
        + ("." if grew else ", or points_on_target, and see whether a format term asks for points at all."),
    )


def same_answer(groups: Groups) -> Finding | None:
    """The answers to different queries all say the same: the policy does not look at the image."""
    judged = groups[-GROUPS:]
    boxes = [one.boxes[0] for group in judged for one in group.completions if len(one.boxes) == 1]
    truths = [group.truth_boxes[0] for group in judged if len(group.truth_boxes) == 1]
    if len(judged) < ENOUGH_GROUPS:
        return None
    evidence = _one_box(boxes, truths, ENOUGH_ANSWERS)
    return None if evidence is None else _same(evidence)


def _same(evidence: str) -> Finding:
    """The finding `same_answer`."""
    return Finding(
        "same_answer",
        "All answers say the same",
        evidence,
        "The policy answers without the image: see whether freeze_vision_tower is on, raise the learning rate or the "
        "resolution (input_wh), or give the cold start more examples; a box in the middle is a baseline to beat.",
    )


def _one_box(boxes: Sequence[Box], truths: Sequence[Box], enough: int) -> str | None:
    """The evidence that boxes about different images are one box, as shares of the sides; None where they are not.

    boxes: of the answers, xyxy in shares. truths: the true ones, which must differ more. With fewer than `enough`
    of either nothing is said.
    """
    if min(len(boxes), len(truths) * 2) < enough:
        return None
    share, middle = _same_as_median(boxes)
    true_share, _ = _same_as_median(truths)
    if share < SAME_SHARE or true_share >= share / 2:
        return None
    said = ", ".join(f"{value:.2f}" for value in middle)
    return (
        f"{share:.0%} of the boxes are the same, {said} in shares of the image's sides (IoU of {SAME_IOU} or more); "
        f"of the true boxes {true_share:.0%} are alike."
    )


def _same_as_median(boxes: Sequence[Box]) -> tuple[float, np.ndarray]:
    """The share of boxes that are the same as their median box, and that box."""
    array = np.array(boxes, dtype=float)
    middle = np.median(array, axis=0)
    return float(np.mean(box_ious(array, middle) >= SAME_IOU)), middle


def same_answer_in(records: Sequence[EvalRecord]) -> Finding | None:
    """The finding `same_answer` in greedy answers; None with fewer than twenty that name one object."""
    boxes, truths = [], []
    for record in records:
        height, width = record.truth["size"]
        side = np.array([width, height, width, height], dtype=float)
        if len(record.prompts) == 1 and record.prompts[0].box_xyxy is not None:
            boxes.append(tuple(record.prompts[0].box_xyxy / side))
        if (box := mask_to_box(from_rle(record.truth))) is not None:
            truths.append(tuple(box / side))
    evidence = _one_box(boxes, truths, ENOUGH_ANSWERS)
    return None if evidence is None else _same(evidence)


GROUP_CHECKS: tuple[Callable[[Groups], Finding | None], ...] = (
    wrong_frame,
    pays_degenerate,
    always_wrong,
    always_right,
    points_run,
    same_answer,
)


def _is_wrong(one: CompletionFacts) -> bool:
    return one.iou <= WRONG_IOU


def _all_wrong(groups: Groups, kind: str) -> bool:
    of_kind = [group for group in groups if group.kind == kind]
    return len(of_kind) >= ENOUGH_GROUPS // 2 and all(_is_wrong(one) for group in of_kind for one in group.completions)


def _share_of_groups(groups: Groups, holds: Callable[[CompletionFacts], bool]) -> tuple[float | None, Groups]:
    """In which share of the last groups something holds of every completion; None with too few of them."""
    judged = [group for group in groups[-GROUPS:] if group.completions]
    if len(judged) < ENOUGH_GROUPS:
        return None, judged
    return sum(all(map(holds, group.completions)) for group in judged) / len(judged), judged


def _degenerate(
    name: str, paying: Sequence[str], them: Sequence[CompletionFacts], others: Sequence[CompletionFacts]
) -> Finding:
    sums = ", ".join(f"{term} {_paid(term, them):.2f} against {_paid(term, others):.2f}" for term in paying)
    one = {"empty": "an empty", "full": "a full"}[name]
    return Finding(
        f"pays_{name}",
        f"A term pays for {name} masks",
        f"{len(them)} of the last answers have {one} mask where the truth has none. They are paid: {sums} for others.",
        f"Look at what {', '.join(paying)} computes for such a mask: each term should be largest for the perfect mask, "
        f"and {one} one should never beat it.",
    )


def _is_empty(one: CompletionFacts) -> bool:
    return one.area == 0


def _is_full(one: CompletionFacts) -> bool:
    return one.area >= FULL_AREA


def _pays_more(term: str, them: Sequence[CompletionFacts], others: Sequence[CompletionFacts]) -> bool:
    every = [*_values(term, them), *_values(term, others)]
    if not _values(term, them) or not _values(term, others):
        return False
    return _paid(term, them) - _paid(term, others) > PAYS * (max(every) - min(every)) > 0


def _paid(term: str, answers: Sequence[CompletionFacts]) -> float:
    values = _values(term, answers)
    return sum(values) / len(values) if values else 0.0


def _values(term: str, answers: Iterable[CompletionFacts]) -> list[float]:
    return [value for one in answers if (value := one.terms.get(term)) is not None]
