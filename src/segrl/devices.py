"""What this process may use of the machine, what is installed there, and which of several processes it is.

Imports no torch by itself.
"""

from __future__ import annotations

import os
import platform
import sys


def core_count() -> int:
    """CPU cores that this process may run on; all of them where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(threads: int | None = None) -> str:
    """The first GPU by name; without one the CPU's architecture and `threads` (those of torch by default)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = threads or torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread" + ("s" if threads > 1 else "")


def installed_version(package: str) -> str | None:
    """The version of a package by its name in the registry; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def rank() -> int:
    """Which of the processes started together this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process writes the run's directory: the only one, or the first of those started together."""
    return rank() == 0


def wait_for_all() -> None:
    """Goes on when every process has come here; at once where there is one."""
    if "torch" not in sys.modules:
        return
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
