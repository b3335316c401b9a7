"""A data set of one's own: any sequence of `segrl.types.Example` that a class or a function gives.

    segrl train examples/own_dataset.yaml --out runs/own_dataset
    segrl eval --dataset python:own_dataset.Discs --policy tiny n=20        (from the folder of this file)

Here each picture is drawn when it is asked for; yours is read from a file then, so that nothing is held in memory.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segrl.types import Example


class Discs(Sequence[Example]):
    """`n` pictures of one bright disc each. Every parameter is an option of the recipe's `dataset`."""

    def __init__(self, n: int = 100, side: int = 112) -> None:
        self.n, self.side = n, side

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Example:
        """The same index gives the same example, in any order and in any process."""
        if not 0 <= index < self.n:
            raise IndexError(index)
        chance = np.random.default_rng(index)
        x, y = chance.integers(30, self.side - 30, 2)
        radius = chance.integers(10, 25)
        rows, columns = np.ogrid[: self.side, : self.side]
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        pixels = np.where(disc[..., None], (220, 40, 40), (60, 70, 80)).astype(np.uint8)
        return Example(
            id=f"disc-{index}",
            image_id=f"disc-{index}",
            image=Image.fromarray(pixels),
            query="the red circle",
            targets=disc[None],  # (N, H, W) bool: one mask per object; N = 0 says that nothing is there
        )
