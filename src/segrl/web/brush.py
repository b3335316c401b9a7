"""Label Studio's own run lengths for brush regions.

The bits, most significant first: the number of bytes of the picture (32), the size of a word less one
(5), four field sizes less one (4 each); then runs of words. A run is: 1, which field size (2), its length
less one in that many bits, and the word. The picture is RGBA with all four bytes of a pixel equal, 0 or
255, row by row.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

WORD_BITS = 8
FIELD_BITS = (3, 4, 8, 16)
CHANNELS = 4


def encode(mask: np.ndarray) -> list[int]:
    """A `(H, W)` bool mask as the bytes of `value.rle`."""
    flat = mask.ravel()
    bits = [f"{flat.size * CHANNELS:032b}{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in FIELD_BITS)]
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *edges.tolist(), flat.size] if flat.size else []
    for start, stop in pairwise(bounds):
        bits += _run((stop - start) * CHANNELS, bool(flat[start]))
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _run(length: int, inside: bool) -> list[str]:
    """The bits of `length` equal words; runs that no field holds are cut."""
    word, runs = f"{255 if inside else 0:0{WORD_BITS}b}", []
    while length > 0:
        part = min(length, 2 ** FIELD_BITS[-1])
        field = next(i for i, size in enumerate(FIELD_BITS) if part <= 2**size)
        runs.append(f"1{field:02b}{part - 1:0{FIELD_BITS[field]}b}{word}")
        length -= part
    return runs
