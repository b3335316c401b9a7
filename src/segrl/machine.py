"""What this process may use of the machine. Imports no torch."""

from __future__ import annotations

import os


def core_count() -> int:
    """CPU cores that this process may run on; all of them where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
