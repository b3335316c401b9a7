"""The API: segment, masks, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from segrl import __version__
from segrl.web import parsing
from segrl.web.errors import Refused
from segrl.web.limits import Places, check_token, client_of, while_client_waits
from segrl.web.schemas import (
    ERRORS,
    MASKS_BODY,
    SEGMENT_BODY,
    MasksRequest,
    MasksResponse,
    SegmentRequest,
    SegmentResponse,
    masks_body,
    segment_body,
)
from segrl.web.service import Service

JSON = "application/json"

Take = Callable[[int], None]
"""Asks for so many bytes of memory."""

_bearer = HTTPBearer(auto_error=False, description="The token that the server was started with, if any.")


class Health(BaseModel):
    """The server is up."""

    status: str
    version: str


async def guarded(
    request: Request, service: Service, places: Places, work: Callable[[Take], Awaitable[bytes]]
) -> Response:
    """The answer that `work` makes, with a place and its memory held and the clock running from the first byte on."""
    async with places.one(client_of(request)), asyncio.timeout(service.limits.seconds):
        with service.memory.holding() as take:
            return Response(await work(take), media_type=JSON)


def build(service: Service) -> APIRouter:
    """The routes of one service."""

    def authorized(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
        check_token(request, service.settings.token)

    router = APIRouter()
    api = APIRouter(prefix="/v1", dependencies=[Depends(authorized)], responses=ERRORS)

    @api.post("/segment", response_model=SegmentResponse, openapi_extra=SEGMENT_BODY)
    async def segment(request: Request) -> Response:
        """Masks for one query or several about an image, with the policy's reasoning and mask prompts."""
        return await guarded(request, service, service.segment_places, lambda take: _segment(request, service, take))

    @api.post("/masks", response_model=MasksResponse, openapi_extra=MASKS_BODY)
    async def masks(request: Request) -> Response:
        """Masks for boxes and points; an image that was sent before may be named by its `image_id`."""
        return await guarded(request, service, service.masks_places, lambda take: _masks(request, service, take))

    @router.get("/healthz", response_model=Health, responses={503: ERRORS[503]})
    async def healthz() -> Health:
        """Whether the server takes requests."""
        if service.closing:
            raise Refused(503, "closing", "the server is shutting down", {"Retry-After": "10"})
        return Health(status="ok", version=__version__)

    @router.get("/metrics", dependencies=[Depends(authorized)], response_class=Response, responses=_METRICS)
    async def metrics() -> Response:
        """Numbers for Prometheus, in its text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    router.include_router(api)
    return router


_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    401: ERRORS[401],
}


async def _segment(request: Request, service: Service, take: Take) -> bytes:
    asked, data = await parsing.read(request, SegmentRequest, service.limits, take, service.in_thread)
    assert data is not None  # a SegmentRequest always has an image

    async def answer() -> bytes:
        image_id, image = await service.open_image(data, take)
        results = await service.segment(image, asked.queries)
        return await service.in_thread(lambda: segment_body(image_id, image, results, asked.mask_format))

    return await while_client_waits(request, answer())


async def _masks(request: Request, service: Service, take: Take) -> bytes:
    asked, data = await parsing.read(request, MasksRequest, service.limits, take, service.in_thread)
    prompts = [prompt.to_mask_prompt() for prompt in asked.prompts]

    async def answer() -> bytes:
        if data is not None:
            image_id, image = await service.open_image(data, take)
        else:
            image_id = asked.image_id or ""
            image = service.recent.get(image_id)
        found = await service.masks(image, prompts)
        return await service.in_thread(lambda: masks_body(image_id, image, found, asked.mask_format))

    return await while_client_waits(request, answer())
