"""The argument of a reward term."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from segrl.types import Answer, Score, Segmentation

if TYPE_CHECKING:
    from PIL import Image

    from segrl.turns import Turn


@dataclass(frozen=True)
class ScoredTurn:
    """One turn of a conversation (`segrl.turns.Turn`) with the score of what stood after it."""

    turn: Turn
    score: Score


@dataclass(frozen=True)
class Rollout:
    """A completion with its answer, masks and scores: the argument of a reward term.

    Arrays are numpy's, bool, at the size of the original image, (0, 0) the top-left pixel; numbers of the answer
    are original pixels, clipped to the image.

    example_id, query: which example it answers, and its words. image: the original picture, RGB (PIL).
    text: the completion, special tokens kept, EOS and padding cut. truncated: cut off at the token limit.
    n_tokens: tokens generated. targets: `(N, H, W)` ground truth, one mask per object, N = 0 where nothing is
    there. ignore: `(H, W)` pixels left out of every score, or None. score: IoU, S-measure and areas of the union
    (`segrl.types.Score`). required_parts: what the answer format asks a complete answer to hold. segmentation:
    the answer with its masks as torch has them, on the segmenter's device; `answer` and `masks` say the same.
    turns: of a conversation, each with the score of what stood after it; all else is said of what stands at its end,
    `text` of all its texts. Empty for a single answer.
    """

    example_id: str
    text: str
    truncated: bool
    n_tokens: int
    segmentation: Segmentation
    score: Score
    targets: np.ndarray
    ignore: np.ndarray | None = None
    required_parts: frozenset[str] = frozenset()
    image: Image.Image | None = None
    query: str = ""
    turns: tuple[ScoredTurn, ...] = ()

    @property
    def answer(self) -> Answer:
        """The parsed answer: status, reasoning and mask prompts (`segrl.types.Answer`), in original pixels."""
        return self.segmentation.answer

    @cached_property
    def masks(self) -> np.ndarray:
        """`(M, H, W)` bool: the segmenter's mask of each mask prompt; M = 0 for a failure and for "nothing there"."""
        return self.segmentation.masks.cpu().numpy()

    @property
    def mask(self) -> np.ndarray:
        """`(H, W)` bool: all masks as one."""
        return np.asarray(self.masks.any(axis=0))

    @property
    def has_target(self) -> bool:
        """False on a no-target sample, where the right answer is to say so."""
        return bool(self.targets.any())
