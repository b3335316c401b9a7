"""Reward terms over the text of an answer."""

from __future__ import annotations

import re

from segrl.rewards.rollout import Rollout

_SENTENCE_END = re.compile(r"\n|[!?。！？]|\.(?!\d)|(?<!\d)\.")
"""A full stop between two digits is a decimal point."""

_WORDS = 3
"""Shorter pieces are no sentences: "e.g." and the numbers of a list."""


def non_repeat(rollout: Rollout, *, allowed: int = 1) -> float:
    """1 if at most `allowed` sentences repeat an earlier one, else 0; what a group repeats is not compared.

    Judged is the reasoning, or the whole text where there is none; letter case and spaces do not
    count. No sentence at all pays 1. Source: VisionReasoner (arXiv 2505.12081), whose code forgives
    one repeated sentence, and takes "0.5" for two.
    """
    reasoning = rollout.answer.reasoning
    found = sentences(rollout.text if reasoning is None else reasoning)
    return float(len(found) - len(set(found)) <= allowed)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in lower case, with single spaces; pieces of fewer than three words left out.

    >>> sentences("The box is 0.5 wide. The BOX  is 0.5 wide! 1. No.")
    ['the box is 0.5 wide', 'the box is 0.5 wide']
    """
    pieces = (piece.lower().split() for piece in _SENTENCE_END.split(text))
    return [" ".join(words) for words in pieces if len(words) >= _WORDS]


def check_non_repeat(*, allowed: int = 1) -> None:
    """Raises ValueError for fewer than 0."""
    if allowed < 0:
        raise ValueError(f"allowed is a number of sentences, not {allowed}")


def length_budget(rollout: Rollout, *, budget: int = 256, slack: float = 0.5) -> float:
    """1 for a completion of at most `budget` tokens, falling evenly to 0 at (1 + `slack`) × `budget`, in [0, 1].

    A failed answer pays 0, however short. Source: the soft length limit of DAPO (arXiv 2503.14476),
    moved from [-1, 0] to [0, 1].
    """
    if rollout.answer.status.is_failure:
        return 0.0
    return min(1.0, max(0.0, 1 - (rollout.n_tokens - budget) / (slack * budget)))


def check_length_budget(*, budget: int = 256, slack: float = 0.5) -> None:
    """Raises ValueError unless both are above 0."""
    if budget < 1 or slack <= 0:
        raise ValueError(f"budget ({budget} tokens) and slack ({slack} of it) must be above 0")
