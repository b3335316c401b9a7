"""When reading a prompt once per group pays: the same numbers for the trainer and for `segrl plan`. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MASK_SHARE = 0.05
"""Of the device's memory, the most that a mask over a packed sequence may take."""
MASK_BYTES = 5
"""Of a pair of tokens under the mask: a bool, and the float32 that an attention kernel may make of it."""
GAIN = 0.8
"""A packed pass is taken where its operations are at most this share of the plain pass's. Measured, its time is within
0.15 of that share, and less than the plain pass's from 0.98 down; see docs/performance.md."""


@dataclass(frozen=True)
class Cost:
    """Operations of a pass through the language model's layers: per token, and per pair of tokens in attention."""

    per_token: float
    per_pair: float

    @classmethod
    def of_layers(cls, layers: int, width: int, mlp: int, queries: int, keys: int) -> Cost:
        """queries, keys: width of all heads' queries together, and of all keys."""
        weights = width * (2 * queries + 2 * keys + 3 * mlp)
        return cls(2 * weights * layers, 4 * queries * layers)

    def of(self, rows: int, length: int) -> float:
        """Of `rows` sequences of `length` tokens under a mask, which every pair of tokens goes through."""
        return rows * length * (self.per_token + length * self.per_pair)

    def share(self, packed: Iterable[tuple[int, int]], plain: tuple[int, int]) -> float:
        """Operations of passes over packed rows, over those of one with a row per completion; each (rows, length)."""
        return sum(self.of(*shape) for shape in packed) / self.of(*plain)

    def gains(self, packed: Iterable[tuple[int, int]], plain: tuple[int, int]) -> bool:
        """Whether passes over packed rows cost clearly less."""
        return self.share(packed, plain) <= GAIN


def mask_bytes(rows: int, length: int) -> int:
    """What a mask over so many packed rows takes."""
    return MASK_BYTES * rows * length**2
