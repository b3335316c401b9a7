"""Texts → rewards: masks and scores are computed once per batch and shared by all terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from segrl.errors import RecipeError, SegrlError
from segrl.rewards.registry import RewardTerm
from segrl.rewards.rollout import Rollout, ScoredTurn
from segrl.text import first_line

if TYPE_CHECKING:
    from PIL import Image

    from segrl.text_to_masks import TextToMasks
    from segrl.turns import Conversation
    from segrl.types import Segmentation

Values = list[float | None]


@dataclass(frozen=True)
class Completions:
    """A batch of completions with their examples; all sequences are parallel.

    texts: completions as `segrl.policies.read_completion` yields them. images: the original
    pictures. image_ids: equal if and only if the images are equal. targets: `(N, H, W)` bool each. ignores:
    `(H, W)` bool or None each. queries: the users' words. conversations: what the texts are the last of, where
    each is a conversation of turns that was read already.
    """

    texts: Sequence[str]
    truncated: Sequence[bool]
    n_tokens: Sequence[int]
    example_ids: Sequence[str]
    images: Sequence[Image.Image]
    image_ids: Sequence[str]
    targets: Sequence[np.ndarray]
    ignores: Sequence[np.ndarray | None]
    queries: Sequence[str]
    conversations: Sequence[Conversation] | None = None


@dataclass(frozen=True)
class RewardBatch:
    """Rollouts with each term's values (without weights, None where it does not apply) and the weighted sums."""

    rollouts: list[Rollout]
    values: dict[str, Values]
    totals: Values


class RewardEngine:
    """Scores completions: texts → masks → scores → reward terms.

    >>> engine = RewardEngine(text_to_masks, build_terms({"iou": 0.7, "s_measure": 0.3}))  # doctest: +SKIP
    >>> engine.score(completions).totals  # doctest: +SKIP
    [0.93, 0.0]
    """

    def __init__(self, text_to_masks: TextToMasks, terms: Sequence[RewardTerm]) -> None:
        self.text_to_masks, self.terms = text_to_masks, tuple(terms)

    def rollouts(self, batch: Completions) -> list[Rollout]:
        """The completions with their masks and scores."""
        from segrl import scoring

        segmentations = self._read(batch)
        different = {id(targets): targets for targets in batch.targets}
        unions = {key: np.asarray(targets.any(axis=0)) for key, targets in different.items()}
        truths = [unions[id(targets)] for targets in batch.targets]  # one object a group, which is scored together
        scores = scoring.score(segmentations, truths, list(batch.ignores))
        turns = _scored_turns(batch, truths)
        return [
            Rollout(
                example_id=batch.example_ids[i],
                text=batch.texts[i],
                truncated=batch.truncated[i],
                n_tokens=batch.n_tokens[i],
                segmentation=segmentation,
                score=score,
                targets=batch.targets[i],
                ignore=batch.ignores[i],
                required_parts=self.text_to_masks.answer_format.required_parts,
                image=batch.images[i],
                query=batch.queries[i],
                turns=turns[i],
            )
            for i, (segmentation, score) in enumerate(zip(segmentations, scores, strict=True))
        ]

    def _read(self, batch: Completions) -> list[Segmentation]:
        if batch.conversations is None:
            return self.text_to_masks.read(
                batch.texts, batch.images, image_ids=list(batch.image_ids), truncated=list(batch.truncated)
            )
        return [conversation.turns[-1].stands for conversation in batch.conversations]

    def score(self, batch: Completions) -> RewardBatch:
        """Every term's value for every completion, and their weighted sums."""
        rollouts = self.rollouts(batch)
        values = {term.name: [_checked(term, rollout) for rollout in rollouts] for term in self.terms}
        totals = [self.total({name: column[i] for name, column in values.items()}) for i in range(len(rollouts))]
        return RewardBatch(rollouts, values, totals)

    def total(self, values: dict[str, float | None]) -> float | None:
        """The weighted sum of the terms that apply; None if none does."""
        paid = [(term.weight, values[term.name]) for term in self.terms]
        applying = [weight * value for weight, value in paid if value is not None]
        return sum(applying) if applying else None


def _scored_turns(batch: Completions, truths: Sequence[np.ndarray]) -> list[tuple[ScoredTurn, ...]]:
    """Of each conversation its turns with their scores; () for single answers."""
    from segrl import scoring

    if batch.conversations is None:
        return [() for _ in batch.texts]
    flat = [(i, turn) for i, conversation in enumerate(batch.conversations) for turn in conversation.turns]
    stands = [turn.stands for _, turn in flat]
    scores = scoring.score(stands, [truths[i] for i, _ in flat], [batch.ignores[i] for i, _ in flat])
    turns: list[list[ScoredTurn]] = [[] for _ in batch.texts]
    for (i, turn), score in zip(flat, scores, strict=True):
        turns[i].append(ScoredTurn(turn, score))
    return [tuple(own) for own in turns]


def _checked(term: RewardTerm, rollout: Rollout) -> float | None:
    """A term's value. What a term of one's own gets wrong is a RecipeError; a fault of our own raises as it is."""
    try:
        value = term(rollout)
    except SegrlError:
        raise
    except Exception as error:
        if term.path is None:
            raise
        raise RecipeError(
            f"rewards.{term.name} ({term.path}) failed on example {rollout.example_id}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if value is None:
        return None
    if isinstance(value, (Real, np.bool_)) and math.isfinite(value):
        return float(value)
    wrong = RecipeError if term.path is not None else ValueError
    raise wrong(
        f"rewards.{term.name} gave {value!r:.60} for a completion of example {rollout.example_id}: a term returns "
        "a finite number, or None where it does not apply"
    )
