"""The same work in several processes, one for each GPU; a process that dies takes only its own images with it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from segrl.devices import core_count
from segrl.errors import SegrlError
from segrl.folder_job.work import Done, Plan, Task, about, answered
from segrl.log_filters import quieten

_WANTS, _DONE, _FAILED = "wants", "done", "failed"


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    open_tasks: dict[str, Task] = dataclasses.field(default_factory=dict)

    def lost(self) -> Iterator[Done]:
        """The tasks that nobody answers any more."""
        self.process.join()
        why = f"the process that worked on it ended with status {self.process.exitcode} (out of memory?)"
        yield from ((task, about(task.image, why)) for task in self.open_tasks.values())


def answered_by_processes(tasks: Sequence[Task], plan: Plan, count: int) -> Iterator[Done]:
    """As `work.answered`, by `count` processes that each load the model; records come as they are finished."""
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        for number in range(min(count, len(tasks))):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, plan, number, count), daemon=True)
            process.start()
            there.close()  # so that a process that dies is noticed
            workers.append(_Worker(process, here))
        yield from _hand_out(deque(tasks), {worker.pipe: worker for worker in workers})
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
            worker.process.join()


def _hand_out(waiting: deque[Task], workers: dict[Connection, _Worker]) -> Iterator[Done]:
    while workers:
        for pipe in wait(list(workers)):
            assert isinstance(pipe, Connection)
            worker = workers[pipe]
            try:
                kind, *content = pipe.recv()
            except (EOFError, OSError):
                del workers[pipe]
                yield from worker.lost()
                continue
            if kind == _FAILED:
                raise SegrlError(content[0])
            if kind == _DONE:
                name, record = content
                yield worker.open_tasks.pop(name), record
            else:
                _answer(worker, waiting.popleft() if waiting else None)
    if waiting:
        raise SegrlError(f"every process ended before {len(waiting)} images were begun: see what they printed")


def _answer(worker: _Worker, task: Task | None) -> None:
    """Gives a worker a task, or tells it that there is none. One that died meanwhile is noticed at the next look."""
    if task is not None:
        worker.open_tasks[task.name] = task
    with suppress(OSError):
        worker.pipe.send(task)


def _work(pipe: Connection, plan: Plan, number: int, count: int) -> None:
    """What a process does until there is no task left, or nobody to report to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            for task, record in answered(_asked_for(pipe), plan, _settle_in(number, count)):
                pipe.send((_DONE, task.name, record))
        except SegrlError as error:
            pipe.send((_FAILED, str(error)))


def _asked_for(pipe: Connection) -> Iterator[Task]:
    while True:
        pipe.send((_WANTS,))
        task: Any = pipe.recv()
        if task is None:
            return
        yield task


def _settle_in(number: int, count: int) -> str | None:
    """Takes this process's share of the cores and quietens all but the first; its GPU, or None without one."""
    import logging

    import cv2
    import torch

    quieten()
    if number:
        logging.getLogger("segrl").setLevel(logging.ERROR)
    cores = max(1, core_count() // count)
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    gpus = torch.cuda.device_count()
    return f"cuda:{number % gpus}" if gpus else None


def gpu_count() -> int:
    """GPUs of this machine that torch can use."""
    import torch

    return torch.cuda.device_count()
