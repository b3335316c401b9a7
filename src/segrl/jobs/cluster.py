"""A Ray cluster as an executor: an actor per GPU, and what a node took with it when it died is given to others."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from segrl.errors import SegrlError
from segrl.jobs.workers import (
    FAILED,
    Executor,
    InProcess,
    Processes,
    R,
    T,
    Work,
    Worker,
    WorkerDied,
    WorkerInfo,
    hand_out,
    serve,
)

ROUNDS = 3
"""How often a task is begun: what takes its actor with it each time is given up."""


class Cluster:
    """The Ray cluster at an address: `auto` (the one that this machine belongs to), HOST:PORT, or `local` (one that is
    started here and ends with the job).

    actors: how many; without it one per GPU, or one per core where the cluster has no GPU. Tasks, results and `work`
    are pickled, so every node has the same version of segrl; files that a task names are read where the actor is.
    Raises SegrlError where Ray is not installed or there is no cluster.
    """

    def __init__(self, address: str = "auto", actors: int | None = None) -> None:
        self.address, self.actors = address, actors

    def run(self, tasks: Iterable[T], work: Work[T, R]) -> Iterator[tuple[T, R | WorkerDied]]:
        """See Executor. A task whose actor died is begun again by another, ROUNDS times at most."""
        ray = _ray(self.address)
        began = _connect(ray, self.address)
        try:
            left: Iterable[T] = tasks
            for round_number in range(1, ROUNDS + 1):
                lost: list[tuple[T, WorkerDied]] = []
                for task, result in self._round(ray, left, work):
                    if isinstance(result, WorkerDied):
                        lost.append((task, result))
                    else:
                        yield task, result
                if not lost:
                    return
                if round_number == ROUNDS:
                    yield from lost
                left = [task for task, _ in lost]
        finally:
            if began:
                ray.shutdown()

    def _round(self, ray: Any, tasks: Iterable[T], work: Work[T, R]) -> Iterator[tuple[T, R | WorkerDied]]:
        """Each task once, by as many actors as the cluster has room for now."""
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        count = self.actors or gpus or cores
        if not count:
            raise SegrlError(f"the Ray cluster at {self.address} has no node that could work")
        threads = max(1, cores // count)
        options = {"num_cpus": threads, "num_gpus": 1 if gpus else 0, "max_concurrency": 2, "max_restarts": 0}
        actor_class = ray.remote(Actor).options(scheduling_strategy="SPREAD", **options)
        lines = [_Line(ray, actor_class.remote(work, number, threads)) for number in range(count)]
        try:
            workers = {line: Worker(line, lambda: "the node that worked on it was lost") for line in lines}
            yield from hand_out(iter(tasks), workers, _Ready(ray))
        finally:
            for line in lines:
                ray.kill(line.actor)


def executor(processes: int, ray: str | None = None) -> Executor:
    """This process for 1, else that many; on the Ray cluster at an address that many actors, and all it has for 1."""
    if ray is not None:
        return Cluster(ray, processes if processes > 1 else None)
    return Processes(processes) if processes > 1 else InProcess()


class Actor:
    """What runs on a node: `work`, in a thread, and the way in and out."""

    def __init__(self, work: Work[Any, Any], number: int, threads: int) -> None:
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._outbox: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._run, args=(work, WorkerInfo(number), threads), daemon=True).start()

    def give(self, message: Any) -> None:
        """A task in a tuple, or None."""
        self._inbox.put(message)

    def said(self) -> list[Any]:
        """Messages since this was asked last; waits for one."""
        messages = [self._outbox.get()]
        while not self._outbox.empty():
            messages.append(self._outbox.get())
        return messages

    def send(self, message: Any) -> None:
        """The worker's side of the pipe."""
        self._outbox.put(message)

    def recv(self) -> Any:
        """The worker's side of the pipe."""
        return self._inbox.get()

    def _run(self, work: Work[Any, Any], worker: WorkerInfo, threads: int) -> None:
        import cv2
        import torch

        from segrl.errors import quieten

        quieten()
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        try:
            serve(self, work, worker)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            self.send((FAILED, f"a worker on the cluster failed: {type(error).__name__}: {error}"))
        self.send(("ended",))


class _Line:
    """The driver's end of the pipe to an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.actor = actor
        self.messages: deque[Any] = deque()
        self.is_broken = False
        self.asked = actor.said.remote()
        self._ray = ray

    def send(self, message: Any) -> None:
        """The task is on its way when this returns; a dead actor is noticed later."""
        self.actor.give.remote(message)

    def fetch(self) -> None:
        """Takes what has come, and asks for more."""
        try:
            self.messages.extend(self._ray.get(self.asked))
        except self._ray.exceptions.RayError:  # the actor, its node or its memory: each has a class of its own
            self.is_broken = True
            return
        self.asked = self.actor.said.remote()

    def recv(self) -> Any:
        """The next message. Raises EOFError where the actor is dead or has ended."""
        if self.messages:
            message = self.messages.popleft()
            if message[0] != "ended":
                return message
        raise EOFError


class _Ready:
    """Which lines have something to say; waits for one."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def __call__(self, lines: list[_Line]) -> list[_Line]:
        """Those with a message, or broken; each is asked again only when its messages are read."""
        while not (found := [line for line in lines if line.messages or line.is_broken]):
            by_reference = {line.asked: line for line in lines}
            done, _ = self._ray.wait(list(by_reference), num_returns=1)
            for reference in done:
                by_reference[reference].fetch()
        return found


def _ray(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # segrl reports nothing anywhere
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's way to say loopback, on Linux too
    try:
        import ray
    except ImportError as error:
        raise SegrlError("--ray needs Ray: pip install 'segrl[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Joins the cluster; whether this call did."""
    if ray.is_initialized():
        return False
    options = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SegrlError(f"there is no Ray cluster at {address}: {first}") from error
    return True
