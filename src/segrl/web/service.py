"""One pipeline for many clients: images in, answers out, in batches across clients; and what Prometheus reads of it."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segrl.batch_queue import BatchQueue
from segrl.errors import ModelError, SegrlError
from segrl.inference import Decoding
from segrl.inference.answering import check_turns
from segrl.masks import PackedMasks
from segrl.pipeline import Pipeline
from segrl.result import Result
from segrl.segmenters import check_takes, held
from segrl.types import Answer, MaskPrompt, Status
from segrl.web.errors import CLIENT_CLOSED_REQUEST, Refused, invalid
from segrl.web.images import RecentImages, decode
from segrl.web.limits import Memory, Places, ServerSettings, Take

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("segrl_requests", "Requests answered.", ["path", "code"], registry=registry)
        self.seconds = Histogram(
            "segrl_request_seconds", "Time to answer.", ["path"], buckets=SECONDS, registry=registry
        )
        self.answers = Counter(
            "segrl_answers", "Queries answered, by status of the answer.", ["status"], registry=registry
        )
        self.batches = Histogram(
            "segrl_batch_size", "Items worked on together.", ["queue"], buckets=BATCHES, registry=registry
        )
        self._waiting = Gauge("segrl_waiting", "Items that no batch has taken yet.", ["queue"], registry=registry)
        self._places = Gauge("segrl_places_taken", "Requests open.", ["queue"], registry=registry)

    def watch(self, queue: str, waiting: Callable[[], int], taken: Callable[[], int]) -> None:
        """Shows a queue and its places as they are when Prometheus asks."""
        self._waiting.labels(queue).set_function(waiting)
        self._places.labels(queue).set_function(taken)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self.registry)


class MeasuredRequests:
    """ASGI middleware that counts and times requests by route; what has no route counts as `other`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        code = CLIENT_CLOSED_REQUEST

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        began = time.monotonic()
        try:
            await self.app(scope, receive, sending)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(code)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)


T = TypeVar("T")

MASKS_BATCH = 16
"""Requests for masks that are decoded together."""
CODEC_THREADS = 2
"""Images decoded and answers encoded at once, beside the two queues."""


def _free(n_bytes: int) -> None:
    """Nobody counts."""


Question = tuple[Image.Image, str, Decoding]
Asked = tuple[Image.Image, tuple[MaskPrompt, ...]]


@dataclass(frozen=True)
class Answered:
    """The answer to one query. result: without its masks, which are `masks`, and its turns, which are `turns`."""

    result: Result
    masks: PackedMasks
    turns: tuple[Answered, ...] = ()


@dataclass(frozen=True)
class Cut:
    """Masks for mask prompts, in their order. scores: `(N,)` float32 or None, as `Segmentation` has them."""

    masks: PackedMasks
    scores: np.ndarray | None
    answer: Answer


class Service:
    """What a server does, without HTTP.

    Queries and mask prompts have a queue each, so that whoever drags a box does not wait for another's
    reasoning. Everything but `close` must be used in one event loop. Masks are made for at most
    `batch_size` queries and `max_mask_pixels` of each at a time, and wait at a bit a pixel.
    """

    def __init__(self, pipeline: Pipeline, settings: ServerSettings) -> None:
        self.settings, self.limits = settings, settings.limits
        self.pipeline = bounded(pipeline, self.limits.max_mask_pixels)
        self.metrics = Metrics()
        self.recent = RecentImages(settings.recent_bytes)
        self.memory = Memory(self.limits.max_memory)
        self._queries: BatchQueue[Question, Answered] = self._queue("segment", self._answer, settings.batch_size)
        self._masks: BatchQueue[Asked, Cut] = self._queue("masks", self._decode, MASKS_BATCH)
        self.segment_places, self.masks_places = self._places(self._queries), self._places(self._masks)
        self._codecs = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="segrl-codec")
        self.closing = False

    def _queue(self, name: str, work: Callable[[Sequence[T]], Sequence], batch_size: int) -> BatchQueue:
        return BatchQueue(name, work, batch_size=batch_size, on_batch=self.metrics.batches.labels(name).observe)

    def _places(self, queue: BatchQueue) -> Places:
        def until_free() -> float:
            return queue.last_batch_seconds * (1 + queue.n_waiting / queue.batch_size)

        places = Places(self.limits.places, self.limits.share, until_free)
        self.metrics.watch(queue.name, lambda: queue.n_waiting, lambda: places.taken)
        return places

    async def close(self) -> None:
        """Finishes what is being worked on."""
        self.closing = True
        await self._queries.close()
        await self._masks.close()

    async def open_image(self, data: bytes, take: Take = _free) -> tuple[str, Image.Image]:
        """An image file's id, by which it can be named again for a while, and its pixels; `take` is asked for
        their memory. Raises Refused."""
        image = await self.in_thread(lambda: decode(data, self.limits.max_pixels))
        take(3 * image.width * image.height)
        return self.recent.put(image), image

    async def segment(
        self, image: Image.Image, queries: Sequence[str], decoding: Decoding | None = None
    ) -> list[Answered]:
        """The answer to each query. decoding: without it as the server was started. Raises Refused."""
        if len(queries) > self.limits.max_queries:
            detail = f"{len(queries)} queries; this server takes {self.limits.max_queries} at once"
            raise Refused(422, "too_many_queries", detail)
        if any(len(query) > self.limits.max_query_chars for query in queries):
            raise invalid(f"query: longer than {self.limits.max_query_chars} characters")
        chosen = decoding or self.pipeline.decoding
        if chosen.samples > max(self.limits.max_samples, self.pipeline.decoding.samples):
            detail = f"{chosen.samples} samples; this server draws {self.limits.max_samples} at most"
            raise Refused(422, "too_many_samples", detail)
        try:
            check_turns(self.pipeline.policy, chosen.turns)
        except SegrlError as error:
            raise invalid(f"turns: {error}") from error
        found = await self._queries.do([(image, query.strip(), chosen) for query in queries])
        for one in found:
            self.metrics.answers.labels(one.result.status.value).inc()
        return [
            replace(one, result=replace(one.result, query=query)) for one, query in zip(found, queries, strict=True)
        ]

    async def masks(self, image: Image.Image, prompts: Sequence[MaskPrompt]) -> Cut:
        """A mask for each prompt in original pixels. Raises Refused."""
        if len(prompts) > self.limits.max_prompts:
            detail = f"{len(prompts)} mask prompts; this server takes {self.limits.max_prompts} at once"
            raise Refused(422, "too_many_prompts", detail)
        if len(prompts) * image.width * image.height > self.limits.max_mask_pixels:
            detail = f"{len(prompts)} masks of {image.width}×{image.height} pixels are more than are made at once"
            raise Refused(413, "too_many_pixels", detail)
        try:
            check_takes(self.pipeline.text_to_masks.segmenter, held(prompts), "these mask prompts hold")
        except ModelError as error:
            raise invalid(f"prompts: {error}") from error
        (found,) = await self._masks.do([(image, tuple(prompts))])
        if found.answer.status.is_failure:
            raise invalid(f"prompts: {found.answer.detail}")
        return found

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The outcome of `work`, done beside the event loop; what a request that ended had begun is finished first."""
        return await asyncio.get_running_loop().run_in_executor(self._codecs, work)

    def _answer(self, asked: Sequence[Question]) -> list[Answered | SegrlError]:
        """Questions that are decoded alike are answered together."""
        answered: dict[int, Answered | SegrlError] = {}
        for decoding in dict.fromkeys(decoding for _, _, decoding in asked):
            places = [i for i, question in enumerate(asked) if question[2] == decoding]
            pairs = [asked[i][:2] for i in places]
            found = self.pipeline.try_many(pairs, batch_size=len(pairs), decoding=decoding)
            told = (one if isinstance(one, SegrlError) else _packed(one) for one in found)
            answered.update(zip(places, told, strict=True))
        return [answered[i] for i in range(len(asked))]

    def _decode(self, asked: Sequence[Asked]) -> list[Cut]:
        return [cut for group in self._groups(asked) for cut in self._decode_group(group)]

    def _groups(self, asked: Sequence[Asked]) -> Iterator[list[Asked]]:
        """Requests whose masks hold at most `max_mask_pixels` together."""
        group: list[Asked] = []
        pixels = 0
        for image, prompts in asked:
            more = len(prompts) * image.width * image.height
            if group and pixels + more > self.limits.max_mask_pixels:
                yield group
                group, pixels = [], 0
            group.append((image, prompts))
            pixels += more
        yield group

    def _decode_group(self, asked: Sequence[Asked]) -> list[Cut]:
        answers = [Answer(Status.OK, prompts) for _, prompts in asked]
        found = self.pipeline.text_to_masks.masks(answers, [image for image, _ in asked])
        return [
            Cut(
                PackedMasks.of(one.masks.cpu().numpy()),
                None if one.scores is None else one.scores.cpu().numpy(),
                one.answer,
            )
            for one in found
        ]


def _packed(result: Result) -> Answered:
    masks, turns = PackedMasks.of(result.masks), tuple(map(_packed, result.turns))
    return Answered(replace(result, masks=masks.nothing, turns=()), masks, turns)


def bounded(pipeline: Pipeline, max_mask_pixels: int) -> Pipeline:
    """The same pipeline, for which an answer of more mask pixels is BAD_VALUES."""
    same = copy.copy(pipeline)
    same.text_to_masks = replace(pipeline.text_to_masks, max_mask_pixels=max_mask_pixels)
    return same
