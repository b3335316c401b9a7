"""One evaluation on several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.errors import SegrlError
from segrl.evaluation.run import Share, finish, run_share
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.settings import EvalSettings
from segrl.log_filters import quieten

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.queues import SimpleQueue

OnDone = Callable[[int], None]
"""Called now and then with how many examples have been answered since the start."""


def run_on_processes(settings: EvalSettings, out: Path | str, processes: int, on_done: OnDone | None = None) -> bool:
    """`run` by that many processes, each on its own GPU where there are several; the result is that of one.

    Raises SegrlError with what the first process that failed says. If this process dies, so do they.
    """
    context = multiprocessing.get_context("spawn")
    told: SimpleQueue[Any] = context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(settings, str(out), Share(rank, processes), told), daemon=True)
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        _watch(workers, told, on_done)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return finish(EvalDir(Path(out)))


def _watch(workers: list[SpawnProcess], told: SimpleQueue[Any], on_done: OnDone | None) -> None:
    """Waits for the workers to end; raises the first one's error."""
    done = 0
    while any(worker.is_alive() for worker in workers) or not told.empty():
        wait([worker.sentinel for worker in workers if worker.is_alive()], timeout=0.5)
        while not told.empty():
            message = told.get()
            if isinstance(message, str):
                raise SegrlError(message)
            done += message
            if on_done is not None:
                on_done(done)
        failed = [rank for rank, worker in enumerate(workers) if worker.exitcode]
        if failed and told.empty():
            raise SegrlError(
                f"process {failed[0]} of {len(workers)} ended with status {workers[failed[0]].exitcode}; "
                "what is finished is kept, and the same command goes on"
            )


def _work(settings: EvalSettings, out: str, share: Share, told: SimpleQueue[Any]) -> None:
    """One process: sends how many examples it finished, or the message of the error that ended it."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(share.rank)
    quieten()
    try:
        run_share(settings, out, share, lambda records, finished, total: told.put(len(records)))
    except SegrlError as error:
        told.put(str(error))
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _die_with_parent() -> None:
    """Ends this process as soon as its parent is gone, however that went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
