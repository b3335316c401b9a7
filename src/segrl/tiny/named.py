"""Which objects of a scene a reasoning names, so that an evaluation can tell whether the mask is of those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segrl.tiny.shapes import Thing


class Named:
    """Reads the policy's own listing (`gold.reasoning`) for one scene.

    things, masks: the objects and their visible masks `(N, H, W)` bool, in the same order.
    """

    def __init__(self, things: Sequence[Thing], masks: np.ndarray) -> None:
        self.names, self.masks = [thing.name for thing in things], masks

    def __eq__(self, other: object) -> bool:
        """Whether both read the same scene."""
        return isinstance(other, Named) and self.names == other.names and np.array_equal(self.masks, other.masks)

    def __call__(self, reasoning: str) -> np.ndarray | None:
        """`(H, W)` bool: the objects marked `yes`, but for those that are not in the scene; None without a mark."""
        items = [item.replace(":", " ").split() for item in reasoning.partition(". ")[0].split(";")]
        meant = [" ".join(words[-3:-1]) for words in items if words[-1:] == ["yes"]]
        if not meant:
            return None
        shown = [name in meant for name in self.names]
        return np.asarray(self.masks[shown].any(axis=0))
