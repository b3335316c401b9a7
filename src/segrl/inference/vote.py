"""Several answers to one question → one answer that keeps the objects apart, and how far they agree.

The rule is StAR's (arXiv 2603.14382 and its public code). Answers that cannot be read have no vote. "Nothing there" if
half of the readable ones say so. Else the single masks of all answers are put together by object (IoU of 0.85 or
more, at most one mask of an answer in an object); the number of objects is the one that most answers give; the
objects with the most votes are kept, each with at least a fifth of the answers that found something. An object's mask
is the one that the segmenter expects to be best, or what more than half of its masks hold.

The answers may come one after the other: masks wait at a bit a pixel until all have been counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from segrl.errors import SegrlError
from segrl.masks import PackedMasks
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
    """One mask of one answer. bits: a bit a pixel, as `PackedMasks` has them. score: the segmenter's; None where it
    gives none."""

    sample: int
    row: int
    bits: np.ndarray
    score: float | None


@dataclass
class _Seen:
    """What a vote keeps of its answers. samples: each without its masks. objects: every mask that has a pixel."""

    samples: list[Segmentation] = field(default_factory=list)
    objects: list[_Object] = field(default_factory=list)
    hw: tuple[int, int] = (0, 0)

    def add(self, one: Segmentation) -> None:
        masks = one.masks.cpu().numpy()
        scores = [None] * len(masks) if one.scores is None else one.scores.tolist()
        packed, sample = PackedMasks.of(masks), len(self.samples)
        for row, (bits, score) in enumerate(zip(packed.packed, scores, strict=True)):
            if bits.any():
                self.objects.append(_Object(sample, row, bits, score))
        self.samples.append(replace(one, masks=_tensor(packed.nothing), logits=None))
        self.hw = packed.hw

    def empty(self, chosen: int) -> Segmentation:
        """An answer whose masks have no pixel, or that has none."""
        one = self.samples[chosen]
        return replace(one, masks=_tensor(np.zeros((len(one.answer.prompts), *self.hw), dtype=bool)))


Cluster = list[int]
"""Places of the objects that are one, the one that most agree with first."""


def vote(found: Iterable[Segmentation], rule: VoteRule = VoteRule()) -> tuple[int, Segmentation]:
    """The place of the answer whose text stands for all, and the answer with the masks that were voted.

    found: at least one, all about one image; from an iterator each is let go of before the next is taken. The masks
    come by votes, those with the most first, on the CPU. Where none could be read the first stands.
    """
    seen = _Seen()
    for _ in map(seen.add, found):  # no name here holds an answer's masks
        pass
    readable = [i for i, one in enumerate(seen.samples) if not one.answer.status.is_failure]
    nothing = [i for i in readable if seen.samples[i].answer.status is Status.NO_TARGET]
    votes = Votes(len(seen.samples), len(readable), len(nothing))
    if not readable or _reaches(len(nothing), rule.nothing, len(readable)):
        chosen = (nothing or [0])[0]
        return chosen, replace(seen.empty(chosen), votes=votes)
    if not seen.objects:
        chosen = next(i for i in readable if i not in nothing)
        agreement = (1 - len(nothing) / len(readable),) * len(seen.samples[chosen].answer.prompts)
        return chosen, replace(seen.empty(chosen), votes=replace(votes, agreement=agreement))
    answered = len(readable) - len(nothing)
    overlaps = overlaps_of([one.bits for one in seen.objects])
    kept = _kept(seen.objects, _clusters(seen.objects, overlaps, rule.same_object), answered, rule)
    chosen = _closest(seen.objects, kept)
    return chosen, _voted(seen, kept, overlaps, chosen, votes, rule)


def _reaches(count: int, share: float, total: int) -> bool:
    """Whether `count` is at least this share of `total`."""
    return count >= share * total - ROUNDING


STRIP = 2**22
"""Bytes of all masks that are compared at once."""


def overlaps_of(masks: Sequence[np.ndarray], strip_bytes: int = STRIP) -> np.ndarray:
    """IoU of each of M masks with each other, none of them empty: `(M, M)` float64.

    masks: each a bit a pixel, `np.packbits` of `(H, W)` bool. They are compared strip by strip, and only where any of
    them has a pixel, so that those of a large image take no second copy.
    """
    both = np.zeros((len(masks), len(masks)), dtype=np.int64)
    step = max(1, strip_bytes // len(masks))
    for start in range(0, len(masks[0]), step):
        strip = np.stack([mask[start : start + step] for mask in masks])
        strip = strip[:, strip.any(axis=0)]
        for row, one in zip(both, strip, strict=True):
            row += np.bitwise_count(strip & one).sum(axis=1, dtype=np.int64)
    areas = both.diagonal()
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
    seen: _Seen, kept: Sequence[Cluster], overlaps: np.ndarray, chosen: int, votes: Votes, rule: VoteRule
) -> Segmentation:
    best = [_best(seen.objects, cluster, overlaps) for cluster in kept]
    scores = [one.score for one in best if one.score is not None]
    prompts = tuple(seen.samples[one.sample].answer.prompts[one.row] for one in best)
    masks = np.zeros((len(kept), *seen.hw), dtype=bool)
    for mask, cluster, one in zip(masks, kept, best, strict=True):
        mask[:] = _mask([one] if rule.mask == "best" else [seen.objects[i] for i in cluster], seen.hw)
    return replace(
        seen.samples[chosen],
        answer=replace(seen.samples[chosen].answer, prompts=prompts),
        masks=_tensor(masks),
        scores=_tensor(np.array(scores, dtype=np.float32)) if len(scores) == len(best) else None,
        votes=replace(votes, agreement=tuple(len(cluster) / votes.readable for cluster in kept)),
    )


def _best(objects: Sequence[_Object], cluster: Cluster, overlaps: np.ndarray) -> _Object:
    """The one with the highest score of the segmenter; without scores the one that overlaps most with the others."""
    scores = [objects[i].score for i in cluster]
    known = [score for score in scores if score is not None]
    values = known if len(known) == len(cluster) else overlaps[np.ix_(cluster, cluster)].sum(axis=1).tolist()
    return objects[cluster[int(np.argmax(values))]]


def _mask(objects: Sequence[_Object], hw: tuple[int, int]) -> np.ndarray:
    """What more than half of them hold, `(H, W)` bool."""
    held = np.zeros(hw, dtype=np.uint16)
    for mask in PackedMasks(tuple(one.bits for one in objects), hw):
        held += mask
    return np.asarray(held > len(objects) // 2)


def _tensor(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(values)
