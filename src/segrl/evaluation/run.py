"""An evaluation that any number of processes work on, that may be killed at any moment, and that ends the same.

The unit of work is a window: examples that are answered together (one, unless a batch size was
given). Window k is process (k mod N)'s. What is finished stands in the journal; whoever starts next
does what is missing. The process that finds all examples there writes the result.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.evaluation import journal
from segrl.evaluation.evaluate import evaluate_window
from segrl.evaluation.records import EvalRecord
from segrl.evaluation.result import write_result
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.settings import EvalSettings, Loaded, describe, load
from segrl.files import append_rows

OnWindow = Callable[[Sequence[EvalRecord], int, int], None]
"""Called after each window with its records, how many examples of this process are finished, and how many it has."""


@dataclass(frozen=True)
class Share:
    """Which part of an evaluation a process does: process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Share:
        """As torchrun and accelerate set RANK and WORLD_SIZE; the whole without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def run(
    settings: EvalSettings, out: Path | str, *, share: Share | None = None, on_window: OnWindow | None = None
) -> bool:
    """Does this process's part of an evaluation in `out`, or what is left of it; True if the whole is finished then.

    share: without it as the environment says. Raises SegrlError for what the user can put right, also
    where `out` holds another evaluation.
    """
    run_share(settings, out, share or Share.of_environment(), on_window)
    return finish(EvalDir(Path(out)))


def run_share(settings: EvalSettings, out: Path | str, share: Share, on_window: OnWindow | None = None) -> None:
    """As `run`, without writing the result."""
    directory = EvalDir(Path(out))
    _fix_threads(settings.threads)
    loaded = load(settings)
    directory.claim(describe(loaded))
    if not directory.records.exists():
        _answer(loaded, directory, share, on_window)


def finish(directory: EvalDir) -> bool:
    """Writes records, metrics and summary if all examples are there; False, and nothing, if some are missing."""
    n = int(directory.description()["dataset"]["examples"])
    message = f"the result in {directory.path} is being written by another process: it will be there in a moment"
    with journal.locked(directory.lock, message, journal.LONG_PATIENCE_S):
        if not directory.records.exists() and not journal.merge(directory.journal, n, directory.records):
            return False
        journal.remove(directory.journal)
        if not directory.summary.exists():
            write_result(directory)
        return True


def _fix_threads(threads: int) -> None:
    """The number of threads decides in which order torch adds numbers, and so their last bits."""
    import torch

    torch.set_num_threads(threads)


def _answer(loaded: Loaded, directory: EvalDir, share: Share, on_window: OnWindow | None) -> None:
    """Answers the windows of this share that are not in the journal yet."""
    windows = _windows(len(loaded.examples), loaded.window)[share.rank :: share.world]
    total, begun, answered = sum(map(len, windows)), time.time(), 0
    with journal.writing(directory.journal / f"{share.rank}.lines") as writer:
        done = journal.lines(directory.journal).keys()
        finished = 0
        for places in windows:
            if not all(place in done for place in places):
                records = _answer_window(loaded, places)
                writer.add(places, records)
                answered += len(records)
                if on_window is not None:
                    on_window(records, finished + len(places), total)
            finished += len(places)
    if answered:
        append_rows(directory.sessions, [_session(share, begun, answered)])


def _windows(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _answer_window(loaded: Loaded, places: Sequence[int]) -> list[EvalRecord]:
    settings = loaded.settings
    examples = [loaded.examples[place] for place in places]
    policy = loaded.policy_for(examples)
    return evaluate_window(
        policy, loaded.text_to_masks, examples, settings.fitted_decoding, saliency=settings.wants_saliency
    )


def _session(share: Share, begun: float, answered: int) -> dict[str, Any]:
    """What one process did: `begun` and `ended` in seconds since 1970."""
    row = {"rank": share.rank, "world": share.world, "samples": answered, "begun": begun, "ended": time.time()}
    return row | {"peak_memory_mib": peak_memory_mib()}


def peak_memory_mib() -> float | None:
    """The most memory that this process has held so far, in MiB; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
