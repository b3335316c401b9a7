"""Label Studio's own run lengths for brush regions (`value.rle`), both ways.

The bits, most significant first: the number of bytes of the picture (32), the size of a word less one
(5), four field sizes less one (4 each); then runs of words. A run is a bit, which field size (2), its length
less one in that many bits, and after the bit 1 the one word that is repeated, after 0 each word of its own.
The picture is RGBA, row by row; its last byte of a pixel says whether the brush was there.
Source: the `@thi.ng/rle-pack` package that Label Studio uses.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from segrl.errors import DataError

WORD_BITS = 8
FIELD_BITS = (3, 4, 8, 16)
CHANNELS = 4
MOST_BITS = 3 + 16 + WORD_BITS
"""That a word takes at most, in a run of its own."""


def encode(mask: np.ndarray) -> list[int]:
    """A `(H, W)` bool mask as the bytes of `value.rle`: all four bytes of a pixel are 0 or 255."""
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


def decode(rle: Any, image_hw: tuple[int, int], name: str) -> np.ndarray:
    """`value.rle` → `(H, W)` bool: where the brush covers at least half. Inverse of `encode`.

    Raises DataError naming the region for bytes that are none, and for another number of pixels than
    `image_hw` has, before anything is unpacked.
    """
    packed = as_bytes(rle, name)
    if len(packed) < 7:
        raise DataError(f"{name} has a brush that is cut short")
    head = _bits(packed[:7])
    height, width = image_hw
    size, word_bits = int(head[:32], 2), int(head[32:37], 2) + 1
    fields = [int(head[i : i + 4], 2) + 1 for i in range(37, 53, 4)]
    if size != height * width * CHANNELS or word_bits != WORD_BITS:
        raise DataError(f"{name} has a brush of {size} bytes, but its image of {width}×{height} has {CHANNELS} each")
    bits = _bits(packed[: 8 + size * MOST_BITS // 8])
    words = np.empty(size, dtype=np.uint8)
    at, place = 0, 53
    while at < size:
        head = bits[place : place + 3].ljust(3, "0")
        field = fields[int(head[1:], 2)]
        length = int(bits[place + 3 : place + 3 + field] or "0", 2) + 1
        place += 3 + field
        own = 1 if head[0] == "1" else length
        end = place + own * WORD_BITS
        if at + length > size or end > len(bits):
            raise DataError(f"{name} has a brush that is cut short")
        words[at : at + length] = [int(bits[i : i + WORD_BITS], 2) for i in range(place, end, WORD_BITS)]
        at, place = at + length, end
    return words.reshape(height, width, CHANNELS)[..., CHANNELS - 1] > 127


def as_bytes(rle: Any, name: str) -> bytes:
    """The bytes of `value.rle`, which JSON holds as a list of numbers. Raises DataError for anything else."""
    try:
        if isinstance(rle, (list, bytes)):  # bytes(10**10) would be as many zeros
            return bytes(rle)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{name} has a brush that is no list of bytes")


def _bits(packed: bytes) -> str:
    return (np.unpackbits(np.frombuffer(packed, dtype=np.uint8)) + ord("0")).tobytes().decode("ascii")
