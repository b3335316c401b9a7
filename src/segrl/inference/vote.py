"""Several answers to one question → one answer that keeps the objects apart, and how far they agree.

The rule is StAR's (arXiv 2603.14382 and its public code). Answers that cannot be read have no vote. "Nothing there" if
half of the readable ones say so. Else the single masks of all answers are put together by object (IoU of 0.85 or
more, at most one mask of an answer in an object); the number of objects is the one that most answers give; the
objects with the most votes are kept, each with at least a fifth of the answers that found something. An object's mask
is the one that the segmenter expects to be best, or what more than half of its masks hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from segrl.errors import SegrlError
from segrl.types import Segmentation, Status, Votes

if TYPE_CHECKING:
    import torch

MASKS = ("best", "consensus")

ROUNDING = 1e-9
"""What a product of a share and a number of samples may be off: 0.55 * 20 is more than 11 in floating point."""


@dataclass(frozen=True)
class VoteRule:
    """The numbers of a vote; see the module.

    same_object: IoU from which masks of two answers are one object. least_votes: share of the answers that found
    something which an object needs. nothing: share of the readable answers that must say "nothing there". mask:
    `best` or `consensus`. Raises SegrlError for shares outside 0 to 1 and another mask.
    """

    same_object: float = 0.85
    least_votes: float = 0.2
    nothing: float = 0.5
    mask: Literal["best", "consensus"] = "best"

    def __post_init__(self) -> None:
        for name in ("same_object", "least_votes", "nothing"):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 < share <= 1:
                raise SegrlError(f"vote.{name} is a share above 0 and up to 1, not {share!r}")
        if self.mask not in MASKS:
            raise SegrlError(f"vote.mask is {' or '.join(MASKS)}, not {self.mask!r}")


@dataclass(frozen=True)
class _Object:
    """One mask of one answer. score: the segmenter's; None where it gives none."""

    sample: int
    row: int
    mask: np.ndarray
    score: float | None


Cluster = list[int]
"""Places of the objects that are one, the one that most agree with first."""


def vote(found: Sequence[Segmentation], rule: VoteRule = VoteRule()) -> tuple[int, Segmentation]:
    """The place of the answer whose text stands for all, and the answer with the masks that were voted.

    found: at least one, all about one image. The masks come by votes, those with the most first, on the CPU. Where
    none could be read the first stands.
    """
    readable = [i for i, one in enumerate(found) if not one.answer.status.is_failure]
    nothing = [i for i in readable if found[i].answer.status is Status.NO_TARGET]
    votes = Votes(len(found), len(readable), len(nothing))
    if not readable or _reaches(len(nothing), rule.nothing, len(readable)):
        chosen = (nothing or [0])[0]
        return chosen, replace(found[chosen], votes=votes)
    objects = _objects(found)
    if not objects:
        chosen = next(i for i in readable if i not in nothing)
        agreement = (1 - len(nothing) / len(readable),) * len(found[chosen].masks)
        return chosen, replace(found[chosen], votes=replace(votes, agreement=agreement))
    answered = len(readable) - len(nothing)
    overlaps = overlaps_of([one.mask for one in objects])
    kept = _kept(objects, _clusters(objects, overlaps, rule.same_object), answered, rule)
    chosen = _closest(objects, kept)
    return chosen, _voted(found, objects, kept, overlaps, chosen, votes, rule)


def _reaches(count: int, share: float, total: int) -> bool:
    """Whether `count` is at least this share of `total`."""
    return count >= share * total - ROUNDING


def _objects(found: Sequence[Segmentation]) -> list[_Object]:
    """Every mask that has a pixel."""
    objects = []
    for sample, one in enumerate(found):
        scores = [None] * len(one.masks) if one.scores is None else one.scores.tolist()
        for row, (mask, score) in enumerate(zip(one.masks.cpu().numpy(), scores, strict=True)):
            if mask.any():
                objects.append(_Object(sample, row, mask, score))
    return objects


def overlaps_of(masks: Sequence[np.ndarray]) -> np.ndarray:
    """IoU of each of M masks `(H, W)` bool, none of them empty, with each other: `(M, M)` float64.

    Masks are compared a bit a pixel, within the box that holds them all, so that those of a large picture fit.
    """
    rows, columns = np.any(masks, axis=(0, 2)), np.any(masks, axis=(0, 1))
    low, high = (np.flatnonzero(rows)[[0, -1]], np.flatnonzero(columns)[[0, -1]])
    packed = np.stack([np.packbits(mask[low[0] : low[1] + 1, high[0] : high[1] + 1]) for mask in masks])
    areas = np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
    both = np.stack([np.bitwise_count(packed & one).sum(axis=1, dtype=np.int64) for one in packed])
    return np.asarray(both / (areas[:, None] + areas - both))


def _clusters(objects: Sequence[_Object], overlaps: np.ndarray, same_object: float) -> list[Cluster]:
    """Objects that are one, at most one of each answer; around the mask that the most answers agree with first."""
    samples = np.array([one.sample for one in objects])
    same = overlaps >= same_object
    support = np.array([len(set(samples[row])) for row in same])
    order = sorted(range(len(objects)), key=lambda i: (-support[i], -(overlaps[i] * same[i]).sum(), i))
    free, clusters = set(order), []
    for leader in order:
        if leader not in free:
            continue
        cluster = [leader]
        others = sorted((i for i in free if same[leader, i] and i != leader), key=lambda i: -overlaps[leader, i])
        for i in others:
            if samples[i] not in samples[cluster]:
                cluster.append(i)
        free -= set(cluster)
        clusters.append(cluster)
    return clusters


def _kept(objects: Sequence[_Object], clusters: list[Cluster], answered: int, rule: VoteRule) -> list[Cluster]:
    """The clusters that are objects of the voted answer, at least one. Of equally frequent counts the lowest counts."""
    counts = Counter(Counter(one.sample for one in objects).values())
    count = min(counts, key=lambda n: (-counts[n], n))
    ranked = sorted(clusters, key=lambda cluster: -len(cluster))
    enough = [cluster for cluster in ranked if _reaches(len(cluster), rule.least_votes, answered)]
    return enough[:count] or ranked[:1]


def _closest(objects: Sequence[_Object], kept: Sequence[Cluster]) -> int:
    """The answer that holds the most of what was kept and the least besides."""
    hits = Counter(objects[i].sample for cluster in kept for i in cluster)
    sizes = Counter(one.sample for one in objects)
    return max(sorted(hits), key=lambda sample: 2 * hits[sample] - sizes[sample])


def _voted(
    found: Sequence[Segmentation],
    objects: Sequence[_Object],
    kept: Sequence[Cluster],
    overlaps: np.ndarray,
    chosen: int,
    votes: Votes,
    rule: VoteRule,
) -> Segmentation:
    best = [_best(objects, cluster, overlaps) for cluster in kept]
    masks = [_mask(objects, cluster, one, rule) for cluster, one in zip(kept, best, strict=True)]
    scores = [one.score for one in best if one.score is not None]
    prompts = tuple(found[one.sample].answer.prompts[one.row] for one in best)
    return replace(
        found[chosen],
        answer=replace(found[chosen].answer, prompts=prompts),
        masks=_tensor(np.stack(masks)),
        scores=_tensor(np.array(scores, dtype=np.float32)) if len(scores) == len(best) else None,
        logits=None,
        votes=replace(votes, agreement=tuple(len(cluster) / votes.readable for cluster in kept)),
    )


def _best(objects: Sequence[_Object], cluster: Cluster, overlaps: np.ndarray) -> _Object:
    """The one with the highest score of the segmenter; without scores the one that overlaps most with the others."""
    scores = [objects[i].score for i in cluster]
    known = [score for score in scores if score is not None]
    values = known if len(known) == len(cluster) else overlaps[np.ix_(cluster, cluster)].sum(axis=1).tolist()
    return objects[cluster[int(np.argmax(values))]]


def _mask(objects: Sequence[_Object], cluster: Cluster, best: _Object, rule: VoteRule) -> np.ndarray:
    if rule.mask == "best":
        return best.mask
    held = np.zeros(best.mask.shape, dtype=np.int32)
    for i in cluster:
        held += objects[i].mask
    return np.asarray(2 * held > len(cluster))


def _tensor(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(values)
