"""Which examples a report shows: some drawn at random, the largest gains, the largest losses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from segrl.evaluation import EvalRecord

AT_RANDOM = 6
LARGEST = 4


@dataclass(frozen=True)
class Pair:
    """One example before and after training."""

    before: EvalRecord
    after: EvalRecord

    @property
    def gain(self) -> float:
        """IoU after minus IoU before."""
        return self.after.iou - self.before.iou


@dataclass(frozen=True)
class Group:
    """Pairs shown together under one heading."""

    title: str
    note: str
    pairs: tuple[Pair, ...]


def choose(before: Sequence[EvalRecord], after: Sequence[EvalRecord], *, seed: int = 0) -> list[Group]:
    """Groups of pairs without repeats, empty groups left out; both sequences hold the same examples in order.

    The first group is drawn at random, kinds of query in turn, before the others, so that it is not
    biased; gains and losses come from the remaining pairs, each kind once before any twice.
    """
    pairs = [Pair(*both) for both in zip(before, after, strict=True)]
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    drawn = _kinds_in_turn(shuffled, AT_RANDOM)
    rest = [pair for pair in pairs if not any(pair is other for other in drawn)]
    gained = _kinds_in_turn(sorted((p for p in rest if p.gain > 0), key=lambda p: -p.gain), LARGEST)
    lost = _kinds_in_turn(sorted((p for p in rest if p.gain < 0), key=lambda p: p.gain), LARGEST)
    groups = [
        Group("Drawn at random", f"Seed {seed}, kinds of query in turn; not selected by result.", tuple(drawn)),
        Group("Largest gains", "The most improved examples, kinds of query in turn.", tuple(gained)),
        Group("Largest losses", "What became worse, kinds of query in turn.", tuple(lost)),
    ]
    return [group for group in groups if group.pairs]


def _kinds_in_turn(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The first `count` pairs when every kind has one before any has two, in the order given otherwise."""
    seen: dict[str | None, int] = {}
    rounds = []
    for position, pair in enumerate(pairs):
        turn = seen.get(pair.before.kind, 0)
        seen[pair.before.kind] = turn + 1
        rounds.append((turn, position, pair))
    return [pair for _, _, pair in sorted(rounds, key=lambda row: row[:2])[:count]]
