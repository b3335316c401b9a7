"""A recipe's reward over HTTP, for trainers whose reward functions see text only and have no GPU.

    POST /score   {"rows": [{"text": "<think>…", "ground_truth": "17:COD10K-…", "truncated": false}]}
               →  {"rewards": [{"reward": 1.7, "status": "ok", "iou": 0.91, "terms": {"iou": 0.91, …}}]}
    GET  /health  {"status": "ok", "recipe": …, "devices": [...], "batches": n}

Rows of all callers are scored together; with several devices an example always goes to the same one,
so that its image is encoded once. A ground truth that cannot be used is status 422 with one line.
Paths in a ground truth stay under the data set's root. Needs the `web` extra.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from segrl.batch_queue import BatchQueue
from segrl.errors import SegrlError
from segrl.integrations.recipe_reward import RecipeReward
from segrl.rewards.engine import RewardBatch

MOST_ROWS = 4096
"""Rows that one request may hold."""
CALLERS = 64
"""Requests that are scored together."""


class Row(BaseModel):
    """A completion and what it should have pointed at; `truncated` where the caller knows that it was cut off."""

    model_config = ConfigDict(extra="forbid")
    text: str
    ground_truth: str
    truncated: bool = False


class Request(BaseModel):
    """The rows of one call."""

    model_config = ConfigDict(extra="forbid")
    rows: list[Row] = Field(max_length=MOST_ROWS)


class Reward(BaseModel):
    """reward: the weighted sum, null where no term applies. terms: without their weights, null as well."""

    reward: float | None
    status: str
    iou: float
    terms: dict[str, float | None]


class Response(BaseModel):
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


def make_app(rewards: Sequence[RecipeReward], *, name: str = "") -> FastAPI:
    """The application over one reward per device."""
    scorers = Scorers(rewards)
    app = FastAPI(title="segrl reward", docs_url=None, redoc_url=None)

    @app.post("/score")
    async def score(request: Request) -> Response:
        try:
            return Response(rewards=await scorers.score(request.rows))
        except SegrlError as error:
            raise HTTPException(422, " ".join(str(error).split())) from error

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "recipe": name, "devices": len(rewards), "batches": scorers.batches}

    return app
