"""What this process may use of the machine, and what is installed there. Imports no torch by itself."""

from __future__ import annotations

import os
import platform


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
