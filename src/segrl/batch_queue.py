"""Work of many clients in batches: while one batch is worked on, the next one gathers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchQueue(Generic[Item, Result]):
    """One thread that answers items in the order in which they came, `batch_size` at most at a time.

    work: items → their results in order, an error standing for an item that has none. on_batch: told the
    size of each batch. All methods belong to one event loop; only `work` runs elsewhere. A batch that
    raises is done again one by one, so that an item's error reaches only the client that asked for it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        batch_size: int,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.name, self.batch_size = name, batch_size
        self.last_batch_seconds = 0.0
        self._work, self._on_batch = work, on_batch
        self._waiting: dict[asyncio.Future[Result], Item] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    async def do(self, items: Sequence[Item]) -> list[Result]:
        """The results of `items`, in order; raises what `work` raised for one of them.

        Whoever is cancelled while waiting takes its items out of the queue.
        """
        loop = asyncio.get_running_loop()
        mine = {loop.create_future(): item for item in items}
        self._waiting.update(mine)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._work_through())
        try:
            return list(await asyncio.gather(*mine))
        finally:
            for future in mine:
                self._waiting.pop(future, None)
                future.cancel()
            mine.clear()  # an error's traceback holds this frame: it must not hold the error in turn

    async def close(self) -> None:
        """Waits for everything that was asked, and lets go of the thread; the next item starts another."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        if self._thread is not None:
            self._thread.shutdown()
        self._pump = self._thread = None

    async def _work_through(self) -> None:
        while self._waiting:
            taken = list(self._waiting)[: self.batch_size]
            await self._answer({future: self._waiting.pop(future) for future in taken})

    async def _answer(self, batch: dict[asyncio.Future[Result], Item]) -> None:
        began = time.monotonic()
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=f"segrl-{self.name}")
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._work, list(batch.values()))
        await asyncio.wait([running])
        self.last_batch_seconds = time.monotonic() - began
        self._on_batch(len(batch))
        error = running.exception()
        if error is not None and len(batch) > 1:
            logger.warning(
                "a batch of %d failed (%s): its items are retried one by one", len(batch), type(error).__name__
            )
            for future, item in batch.items():
                if not future.done():
                    await self._answer({future: item})
        elif error is not None:
            _settle(next(iter(batch)), error)
        else:
            for future, result in zip(batch, running.result(), strict=True):
                _settle(future, result)


def _settle(future: asyncio.Future[Result], outcome: Result | BaseException) -> None:
    """Hands over an outcome, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
