"""Rows from many callers in one batch: while one batch is scored, the next one gathers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Row = TypeVar("Row")
Scored = TypeVar("Scored")


@dataclass(frozen=True)
class _Job(Generic[Row, Scored]):
    rows: Sequence[Row]
    done: Future[list[Scored]] = field(default_factory=Future)


class Gatherer(Generic[Row, Scored]):
    """One thread that scores rows, at most about `most` at a time, from callers that came within `wait` seconds.

    score: rows → one result each; only that thread calls it. A caller whose rows are at fault gets the
    error; the others of its batch get their results.
    """

    def __init__(self, score: Callable[[Sequence[Row]], list[Scored]], *, wait: float = 0.02, most: int = 512) -> None:
        self._score, self._wait, self._most = score, wait, most
        self._jobs: queue.SimpleQueue[_Job[Row, Scored] | None] = queue.SimpleQueue()
        self._closed = False
        self.batches = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row]) -> Future[list[Scored]]:
        """The results of `rows`, in their order, when they are there."""
        job: _Job[Row, Scored] = _Job(rows)
        self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Ends the thread after what has been submitted."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            jobs = self._gather()
            if jobs:
                self.batches += 1
                self._answer(jobs)

    def _gather(self) -> list[_Job[Row, Scored]]:
        """The next job, however long it takes to come, and those that come soon after it."""
        jobs: list[_Job[Row, Scored]] = []
        until = None
        while until is None or sum(len(job.rows) for job in jobs) < self._most:
            try:
                job = self._jobs.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._closed = True
                break
            jobs.append(job)
            until = until or time.monotonic() + self._wait
        return jobs

    def _answer(self, jobs: Sequence[_Job[Row, Scored]]) -> None:
        try:
            results = iter(self._score([row for job in jobs for row in job.rows]))
            for job in jobs:
                job.done.set_result([next(results) for _ in job.rows])
        except Exception as error:  # noqa: BLE001 -- handed to the caller, who raises it
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:
                self._answer([job])
