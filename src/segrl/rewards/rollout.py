"""What a reward term looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segrl.types import Answer, Score, Segmentation

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rollout:
    """A completion with its answer, masks and scores.

    example_id: which example it answers. text: the completion, special tokens kept, EOS and padding
    cut. n_tokens: tokens generated. segmentation: its answer in original pixels with the masks.
    targets: `(N, H, W)` bool ground truth, N = 0 where nothing is there. ignore: `(H, W)` bool, or
    None. required_parts: what the answer format asks a complete answer to hold.
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

    @property
    def answer(self) -> Answer:
        """The parsed answer, in original pixels."""
        return self.segmentation.answer

    @property
    def has_target(self) -> bool:
        """False on a no-target sample, where the right answer is to say so."""
        return bool(self.targets.any())
