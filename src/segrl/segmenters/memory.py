"""Work in batches that fit the device: out of memory halves the batch, says so once, and goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher:
    """Runs work in batches of at most `size` items, fewer once the device has run out of memory.

    what: names the work in the message.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size = size
        self.what = what

    def run(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        items: Sequence[Item],
        too_large: Callable[[Item], Exception],
    ) -> list[Result]:
        """`work` on consecutive batches of `items`, results in order.

        `too_large(item)` is raised where a single item does not fit.
        """
        import torch

        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            try:
                results.extend(work(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise too_large(batch[0]) from error
                self._shrink(len(batch))
        return results

    def _shrink(self, failed: int) -> None:
        import torch

        self.size = max(1, failed // 2)
        logger.warning("out of memory: %s in batches of %d from here on, not %d", self.what, self.size, failed)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
