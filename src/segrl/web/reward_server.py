"""A recipe's reward over HTTP, for trainers whose reward functions see text only and have no GPU.

    POST /score   {"rows": [{"text": "<think>…", "ground_truth": "17:COD10K-…", "truncated": false}]}
               →  {"rewards": [{"reward": 1.7, "status": "ok", "iou": 0.91, "terms": {"iou": 0.91, …}}]}
    GET  /health  {"status": "ok", "recipe": …, "devices": [...], "batches": n}

Rows of all callers are scored together; with several devices an example always goes to the same one,
so that its image is encoded once. What cannot be used is answered `{"error": CODE, "detail": ONE LINE}` by the
rules of `segrl serve` (`web.errors`), within the same limits (`web.limits`). Paths in a ground truth stay under
the data set's root. Needs the `web` extra.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, FailFast

from segrl.batch_queue import BatchQueue
from segrl.integrations.recipe_reward import RecipeReward
from segrl.rewards.engine import RewardBatch
from segrl.web import errors, parsing
from segrl.web.errors import Refused, invalid
from segrl.web.limits import (
    Memory,
    Places,
    ServerSettings,
    Take,
    check_json,
    check_token,
    guarded,
    read_body,
    while_client_waits,
)
from segrl.web.schemas import ERRORS

PARSERS = 2
"""Bodies that are parsed at once, beside the event loop."""
CALLERS = 64
"""Requests that are scored together."""


class Row(BaseModel):
    """A completion and what it should have pointed at; `truncated` where the caller knows that it was cut off."""

    model_config = ConfigDict(extra="forbid")
    text: str
    ground_truth: str
    truncated: bool = False


class ScoreRequest(BaseModel):
    """The rows of one call."""

    model_config = ConfigDict(extra="forbid")
    rows: Annotated[list[Row], FailFast()]


class Reward(BaseModel):
    """reward: the weighted sum, null where no term applies. terms: without their weights, null as well."""

    reward: float | None
    status: str
    iou: float
    terms: dict[str, float | None]


class ScoreResponse(BaseModel):
    """One reward per row, in their order."""

    rewards: list[Reward]


class Scorers:
    """One thread and one segmenter per device. `batches`: how many times they have scored."""

    def __init__(self, rewards: Sequence[RecipeReward]) -> None:
        self.batches = 0
        self._queues: list[BatchQueue[list[Row], list[Reward]]] = [
            BatchQueue(f"reward-{i}", _score_with(one), batch_size=CALLERS, on_batch=self._count)
            for i, one in enumerate(rewards)
        ]

    async def close(self) -> None:
        """Finishes what is being scored."""
        await asyncio.gather(*(queue.close() for queue in self._queues))

    async def score(self, rows: Sequence[Row]) -> list[Reward]:
        """The rewards of the rows, in order. Raises what the scoring raised."""
        mine = [zlib.crc32(row.ground_truth.encode()) % len(self._queues) for row in rows]
        parts: list[list[Row]] = [[] for _ in self._queues]
        for row, place in zip(rows, mine, strict=True):
            parts[place].append(row)
        done = await asyncio.gather(*(queue.do([part]) for queue, part in zip(self._queues, parts, strict=True)))
        scored = [iter(part) for (part,) in done]
        return [next(scored[place]) for place in mine]

    def _count(self, callers: int) -> None:
        self.batches += 1


def _score_with(reward: RecipeReward) -> Callable[[Sequence[list[Row]]], list[list[Reward]]]:
    """Rows of several callers → the rewards of each; scored in one go."""

    def score(asked: Sequence[list[Row]]) -> list[list[Reward]]:
        rows = [row for part in asked for row in part]
        if not rows:
            return [[] for _ in asked]
        texts, truths = [row.text for row in rows], [row.ground_truth for row in rows]
        rewards = iter(_rewards(reward.score(texts, truths, [row.truncated for row in rows])))
        return [list(islice(rewards, len(part))) for part in asked]

    return score


def _rewards(batch: RewardBatch) -> list[Reward]:
    return [
        Reward(
            reward=total,
            status=rollout.score.status.value,
            iou=rollout.score.iou,
            terms={name: values[i] for name, values in batch.values.items()},
        )
        for i, (rollout, total) in enumerate(zip(batch.rollouts, batch.totals, strict=True))
    ]


class RewardService:
    """The reward of one recipe for many callers, within the limits of a server."""

    def __init__(self, rewards: Sequence[RecipeReward], settings: ServerSettings) -> None:
        self.settings, self.limits = settings, settings.limits
        self.scorers, self.n_devices = Scorers(rewards), len(rewards)
        self.places, self.memory = Places(self.limits.places, self.limits.share), Memory(self.limits.max_memory)
        self._parsers = ThreadPoolExecutor(PARSERS, thread_name_prefix="segrl-parser")

    async def answer(self, request: Request) -> Response:
        """The JSON of a ScoreResponse. Raises Refused, DataError and what else the scoring raises."""

        async def work(take: Take) -> bytes:
            body = await read_body(request, self.limits.max_bytes, take)
            loop = asyncio.get_running_loop()
            asked = await loop.run_in_executor(self._parsers, self._parsed, body)
            scored = await while_client_waits(request, self.scorers.score(asked.rows))
            answer = ScoreResponse(rewards=scored)
            return await loop.run_in_executor(self._parsers, lambda: answer.model_dump_json().encode())

        return await guarded(request, self.places, self.memory, self.limits.seconds, work)

    def _parsed(self, body: bytes) -> ScoreRequest:
        limits = self.limits
        asked = parsing.validated(ScoreRequest, body, limits, max_items=max(limits.max_items, 8 * limits.max_rows))
        if len(asked.rows) > limits.max_rows:
            raise Refused(422, "too_many_rows", f"{len(asked.rows)} rows; this server takes {limits.max_rows} at once")
        for i, row in enumerate(asked.rows):
            if len(row.text) > limits.max_text_chars:
                raise invalid(f"rows.{i}.text: longer than {limits.max_text_chars} characters")
            check_json(row.ground_truth.encode(), limits, name=f"rows.{i}.ground_truth")
        return asked


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": ScoreRequest.model_json_schema(ref_template="#/components/schemas/{model}")}
        },
    }
}


def make_app(rewards: Sequence[RecipeReward], *, name: str = "", settings: ServerSettings | None = None) -> FastAPI:
    """The application over one reward per device. name: of the recipe, for the health page."""
    service = RewardService(rewards, settings or ServerSettings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.scorers.close()

    async def authorized(request: Request) -> None:
        check_token(request, service.settings.token)

    app = FastAPI(title="segrl reward", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    errors.install(app)

    @app.post(
        "/score",
        response_model=ScoreResponse,
        responses=ERRORS,
        openapi_extra=_BODY,
        dependencies=[Depends(authorized)],
    )
    async def score(request: Request) -> Response:
        """The reward of each row."""
        return await service.answer(request)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server takes requests."""
        scorers = service.scorers
        return {"status": "ok", "recipe": name, "devices": service.n_devices, "batches": scorers.batches}

    return app
