"""One pipeline for many clients: images in, answers out, in batches across clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from PIL import Image

from segrl.batch_queue import BatchQueue
from segrl.errors import SegrlError
from segrl.pipeline import Pipeline, Result
from segrl.types import Answer, MaskPrompt, Segmentation, Status
from segrl.web.errors import Refused, invalid
from segrl.web.images import RecentImages, decode
from segrl.web.limits import Places, ServerSettings
from segrl.web.metrics import Metrics

T = TypeVar("T")

MASKS_BATCH = 16
"""Requests for masks that are decoded together."""
CODEC_THREADS = 2
"""Images decoded and answers encoded at once, beside the two queues."""


class Service:
    """What a server does, without HTTP.

    Queries and mask prompts have a queue each, so that whoever drags a box does not wait for another's
    reasoning. Everything but `close` must be used in one event loop.
    """

    def __init__(self, pipeline: Pipeline, settings: ServerSettings) -> None:
        self.pipeline, self.settings, self.limits = pipeline, settings, settings.limits
        self.metrics = Metrics()
        self.recent = RecentImages(settings.recent_bytes)
        self._queries: BatchQueue[tuple[Image.Image, str], Result] = self._queue(
            "segment", self._answer, settings.batch_size
        )
        self._masks: BatchQueue[tuple[Image.Image, tuple[MaskPrompt, ...]], Segmentation] = self._queue(
            "masks", self._decode, MASKS_BATCH
        )
        self.segment_places, self.masks_places = self._places(self._queries), self._places(self._masks)
        self._codecs = CapacityLimiter(CODEC_THREADS)
        self.closing = False

    def _queue(self, name: str, work: Callable[[Sequence[T]], Sequence], batch_size: int) -> BatchQueue:
        return BatchQueue(name, work, batch_size=batch_size, on_batch=self.metrics.batches.labels(name).observe)

    def _places(self, queue: BatchQueue) -> Places:
        def until_free() -> float:
            return queue.last_batch_seconds * (1 + queue.n_waiting / queue.batch_size)

        places = Places(self.limits.places, until_free)
        self.metrics.watch(queue.name, lambda: queue.n_waiting, lambda: places.taken)
        return places

    async def close(self) -> None:
        """Finishes what is being worked on."""
        self.closing = True
        await self._queries.close()
        await self._masks.close()

    async def open_image(self, data: bytes) -> tuple[str, Image.Image]:
        """An image file's id, by which it can be named again for a while, and its pixels. Raises Refused."""
        image = await self.in_thread(lambda: decode(data, self.limits.max_pixels))
        return self.recent.put(image), image

    async def segment(self, image: Image.Image, queries: Sequence[str]) -> list[Result]:
        """The answer to each query. Raises Refused."""
        if len(queries) > self.limits.max_queries:
            detail = f"{len(queries)} queries; this server takes {self.limits.max_queries} at once"
            raise Refused(422, "too_many_queries", detail)
        if any(len(query) > self.limits.max_query_chars for query in queries):
            raise invalid(f"query: longer than {self.limits.max_query_chars} characters")
        results = await self._queries.do([(image, query.strip()) for query in queries])
        for result in results:
            self.metrics.answers.labels(result.status.value).inc()
        return [replace(result, query=query) for result, query in zip(results, queries, strict=True)]

    async def masks(self, image: Image.Image, prompts: Sequence[MaskPrompt]) -> Segmentation:
        """A mask for each prompt in original pixels. Raises Refused."""
        if len(prompts) > self.limits.max_prompts:
            detail = f"{len(prompts)} mask prompts; this server takes {self.limits.max_prompts} at once"
            raise Refused(422, "too_many_prompts", detail)
        (found,) = await self._masks.do([(image, tuple(prompts))])
        if found.answer.status is not Status.OK:
            raise invalid(f"prompts: {found.answer.detail}")
        return found

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The outcome of `work`, done beside the event loop."""
        return await run_sync(work, limiter=self._codecs)

    def _answer(self, pairs: Sequence[tuple[Image.Image, str]]) -> list[Result | SegrlError]:
        return list(self.pipeline.try_many(pairs, batch_size=len(pairs)))

    def _decode(self, asked: Sequence[tuple[Image.Image, tuple[MaskPrompt, ...]]]) -> list[Segmentation]:
        answers = [Answer(Status.OK, prompts) for _, prompts in asked]
        return self.pipeline.text_to_masks.masks(answers, [image for image, _ in asked])
