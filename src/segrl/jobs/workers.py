"""Tasks → results, by one process or by several that each load the model once.

    def work(tasks, worker):               # loads what it needs, then answers one task after the other
        model = load(worker.device)
        for task in tasks: yield model(task)

    for task, result in Processes(2).run(tasks, work): ...

Tasks are taken when a worker asks for the next one, so `tasks` may be lazy, and nothing of it is taken before the
first worker has loaded what it needs. `jobs.cluster` is a third `Executor`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from segrl.devices import core_count
from segrl.errors import SegrlError, quieten

T = TypeVar("T")
R = TypeVar("R")

WANTS, DONE, FAILED = "wants", "done", "failed"


@dataclasses.dataclass(frozen=True)
class WorkerInfo:
    """Which of how many processes of this machine a worker is."""

    number: int = 0
    count: int = 1

    @property
    def device(self) -> str | None:
        """The GPU of this worker; None where it is the only one, or there is no GPU."""
        if self.count == 1:
            return None
        gpus = gpu_count()
        return f"cuda:{self.number % gpus}" if gpus else None


@dataclasses.dataclass(frozen=True)
class WorkerDied:
    """In place of a result: why nobody answers the task any more."""

    why: str


Work = Callable[[Iterable[T], WorkerInfo], Iterator[R]]
"""A result for each task, in order; for other processes it must be picklable, as tasks and results must."""


class Executor(Protocol):
    """Who does the work. Results come as they are finished; each worker's are in the order of its tasks.

    Raises the SegrlError that a worker raises. A worker that dies makes its open tasks `WorkerDied`.
    """

    def run(self, tasks: Iterable[T], work: Work[T, R]) -> Iterator[tuple[T, R | WorkerDied]]:
        """(task, result) for each task."""
        ...


class InProcess:
    """This process."""

    def run(self, tasks: Iterable[T], work: Work[T, R]) -> Iterator[tuple[T, R | WorkerDied]]:
        """See Executor."""
        taken: deque[T] = deque()

        def asked_for() -> Iterator[T]:
            for task in tasks:
                taken.append(task)
                yield task

        for result in work(asked_for(), WorkerInfo()):
            yield taken.popleft(), result


class Processes:
    """`count` processes of this machine, each on its own GPU where there are several, with its share of the cores.

    They end when this process does, however it ends.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, tasks: Iterable[T], work: Work[T, R]) -> Iterator[tuple[T, R | WorkerDied]]:
        """See Executor."""
        context = multiprocessing.get_context("spawn")
        workers: dict[Connection, Worker] = {}
        processes: list[BaseProcess] = []
        try:
            for number in range(self.count):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, work, WorkerInfo(number, self.count)), daemon=True)
                process.start()
                there.close()  # so that a process that dies is noticed
                workers[here] = Worker(here, partial(_ended, process))
                processes.append(process)
            yield from hand_out(iter(tasks), workers, wait)
        finally:
            for here, started in zip(workers, processes, strict=False):
                here.close()
                started.terminate()
                started.join()


def _ended(process: BaseProcess) -> str:
    process.join()
    return f"the process that worked on it ended with status {process.exitcode} (out of memory?)"


def gpu_count() -> int:
    """GPUs of this machine that torch can use."""
    import torch

    return torch.cuda.device_count()


class Pipe(Protocol):
    """One end of what leads to a worker; `multiprocessing`'s, or a cluster's."""

    def send(self, message: Any, /) -> None:
        """Raises OSError where nobody is there."""
        ...

    def recv(self) -> Any:
        """Raises EOFError or OSError where nobody is there."""
        ...


@dataclasses.dataclass
class Worker:
    """One of those that tasks are handed to. ended: how it ended, once its pipe is broken."""

    pipe: Pipe
    ended: Callable[[], str]
    open_tasks: deque[Any] = dataclasses.field(default_factory=deque)

    def lost(self) -> Iterator[tuple[Any, WorkerDied]]:
        """The tasks that nobody answers any more."""
        why = WorkerDied(self.ended())
        yield from ((task, why) for task in self.open_tasks)

    def answer(self, tasks: Iterator[Any]) -> bool:
        """Gives it the next task, or tells it that there is none; whether there was one.

        None ends the tasks, so a task is sent as a tuple of one. A worker that died meanwhile is noticed later.
        """
        task = next(((one,) for one in tasks), None)
        if task is not None:
            self.open_tasks.append(task[0])
        with suppress(OSError):
            self.pipe.send(task)
        return task is not None


def hand_out(
    tasks: Iterator[Any], workers: Mapping[Any, Worker], ready: Callable[[list[Any]], Iterable[Any]]
) -> Iterator[tuple[Any, Any]]:
    """(task, result or WorkerDied) as workers, by their pipes, ask for tasks and answer them.

    ready: waits for pipes that have something to say, or have broken, and gives them. Raises SegrlError for what a
    worker says that it cannot do, and where all of them end before every task has begun.
    """
    workers, all_begun = dict(workers), False
    while workers:
        for pipe in ready(list(workers)):
            worker = workers[pipe]
            try:
                kind, *content = pipe.recv()
            except (EOFError, OSError):
                del workers[pipe]
                yield from worker.lost()
                continue
            if kind == FAILED:
                raise SegrlError(content[0])
            if kind == DONE:
                yield worker.open_tasks.popleft(), content[0]
            else:
                all_begun = not worker.answer(tasks)
    if not all_begun:
        raise SegrlError("all worker processes ended before all tasks were started: see their output")


def serve(pipe: Pipe, work: Work[Any, Any], worker: WorkerInfo) -> None:
    """The other end of `hand_out`: answers until there is no task left, or nobody to report to."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            for result in work(_asked_for(pipe), worker):
                pipe.send((DONE, result))
        except SegrlError as error:
            pipe.send((FAILED, str(error)))


def _work(pipe: Connection, work: Work[Any, Any], worker: WorkerInfo) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _settle_in(worker)
    serve(pipe, work, worker)


def _asked_for(pipe: Pipe) -> Iterator[Any]:
    while True:
        pipe.send((WANTS,))
        task = pipe.recv()
        if task is None:
            return
        yield task[0]


def _settle_in(worker: WorkerInfo) -> None:
    """Takes this process's share of the cores, and quietens all but the first."""
    import logging

    import cv2
    import torch

    quieten()
    if worker.number:
        logging.getLogger("segrl").setLevel(logging.ERROR)
    cores = max(1, core_count() // worker.count)
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)


def _die_with_parent() -> None:
    """Ends this process as soon as its parent is gone, however that went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
