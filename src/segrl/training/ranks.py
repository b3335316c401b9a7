"""Which of several training processes this one is. Imports no torch."""

from __future__ import annotations

import os
import sys


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
