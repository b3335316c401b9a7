"""How cost grows with the group, the objects, the image and the batch; and how far it is above the floor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timing import matmul_rate, peak_megabytes, seconds
from torch.utils.flop_counter import FlopCounterMode
from workload import Workload, group, photograph

GROUPS = (4, 8, 16, 32)
OBJECTS = (1, 2, 4, 8)
SIDES = (512, 1024, 2048, 4096)
IMAGES = (1, 2, 4, 8, 16)


def growth(work: Workload, largest: int) -> Iterator[dict[str, Any]]:
    """One entry per point of each sweep; `largest` cuts every sweep to its first points (4: all of it)."""
    for completions in GROUPS[:largest]:
        yield _measure(work, "group size", completions, [work.photograph()], completions, 1)
    for objects in OBJECTS[:largest]:
        yield _measure(work, "objects", objects, [work.photograph()], 8, objects)
    for side in SIDES[:largest]:
        yield _measure(work, "image side", side, [photograph(side, side)], 8, 1)
    for count in IMAGES[: largest + 1]:
        yield _measure(work, "images", count, [work.photograph(i) for i in range(count)], 8, 1)


def _measure(
    work: Workload, sweep: str, value: int, photographs: list[Any], completions: int, objects: int
) -> dict[str, Any]:
    images = [image for image in photographs for _ in range(completions)]
    asked = [answer for i, image in enumerate(photographs) for answer in group(image, completions, objects, seed=i)]
    work.forget()
    took: list[float] = []
    peak = peak_megabytes(lambda: took.append(seconds(lambda: work.ours(images, asked))))
    calls = (work.segmenter.encoder_calls, work.segmenter.decoder_calls)
    again = seconds(lambda: work.ours(images, asked))
    return {
        "sweep": sweep,
        "value": value,
        "seconds": took[0],
        "seconds_warm": again,
        "peak_megabytes": peak,
        "encoder_calls": calls[0],
        "decoder_calls": calls[1],
    }


def floor(work: Workload, completions: int = 8) -> dict[str, float]:
    """The operations of one encode and `completions` decodes at the machine's matrix rate, and what they take here."""
    pixels = work.pixels(work.photograph())
    features = work.bare_encode(pixels)
    encode, decode = (
        _operations(lambda: work.bare_encode(pixels)),
        _operations(lambda: work.bare_decode(features, completions, 1)),
    )
    rate = matmul_rate(work.segmenter.device, work.segmenter.dtype)
    return {
        "matrix_rate": rate,
        "encode_operations": encode,
        "decode_operations": decode,
        "encode_floor_seconds": encode / rate,
        "decode_floor_seconds": decode / rate,
        "encode_seconds": seconds(lambda: work.bare_encode(pixels)),
        "decode_seconds": seconds(lambda: work.bare_decode(features, completions, 1)),
    }


def _operations(run: Any) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
