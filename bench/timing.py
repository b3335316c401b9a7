"""Time things side by side: alternating, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

REPEATS = 5
REPEATS_IF_SLOW = 3
SLOW_SECONDS = 30.0


def side_by_side(
    variants: Mapping[str, Callable[[], Any]], repeats: int = REPEATS, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each variant: one unmeasured round, then `repeats` rounds of all in turn.

    clock: `time.process_time` counts what this process computes alone, not what others take from it. The
    unmeasured round is left out, and three rounds are enough, where a round takes over half a minute.
    """
    gc.collect()
    first = {name: seconds(work, clock) for name, work in variants.items()}
    slow = sum(first.values()) > SLOW_SECONDS
    measured = {name: [first[name]] if slow else [] for name in variants}
    while min(map(len, measured.values())) < min(repeats, REPEATS_IF_SLOW if slow else repeats):
        for name, work in variants.items():
            measured[name].append(seconds(work, clock))
    return {name: statistics.median(times) for name, times in measured.items()}


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call by `clock`, the wall's unless said, the device's queue included."""
    _wait()
    start = clock()
    work()
    _wait()
    return clock() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_megabytes(work: Callable[[], Any]) -> float:
    """Peak memory during one call: of the device where there is one, else of this process as a whole."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    work()
    return _status_megabytes("VmHWM")


def memory_growth_megabytes(work: Callable[[], Any]) -> float:
    """By how much memory grows at most during one call: the device's where there is one, else this process's."""
    gc.collect()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated() / 2**20
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free is not counted as used before
        before = _status_megabytes("VmRSS")
    return peak_megabytes(work) - before


def _status_megabytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines if ":" in line)[key].split()[0]) / 2**10


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Operations a second of a square matrix product (two for each multiply-add), the best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(5))
