"""The server as an ASGI application: segment, masks, health and metrics, and the Label Studio backend beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from segrl import __version__
from segrl.errors import SegrlError
from segrl.inference import Decoding
from segrl.pipeline import Pipeline
from segrl.web import errors, label_studio, parsing, schemas
from segrl.web.errors import Refused, invalid
from segrl.web.limits import ServerSettings, Take, check_token, guarded, while_client_waits
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
from segrl.web.service import MeasuredRequests, Service

DESCRIPTION = """
Masks for pictures, from a request in plain words (`/v1/segment`) or from boxes and points (`/v1/masks`).
Coordinates are pixels of the image: x right, y down, boxes `[x1, y1, x2, y2]` with an exclusive maximum.
An error is `{"error": CODE, "detail": ONE LINE}`.
"""


def create_app(pipeline: Pipeline, settings: ServerSettings | None = None) -> FastAPI:
    """The application over one pipeline; `app.state.service` is what it does without HTTP."""
    service = Service(pipeline, settings or ServerSettings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.closing = False
        yield
        await service.close()

    app = FastAPI(title="segrl", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.service = service
    app.include_router(routes(service))
    app.include_router(label_studio.build(service))
    errors.install(app)
    schemas.install(app)
    app.add_middleware(MeasuredRequests, metrics=service.metrics)
    if service.settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


_bearer = HTTPBearer(auto_error=False, description="The token that the server was started with, if any.")


class Health(BaseModel):
    """The server is up."""

    status: str
    version: str


def routes(service: Service) -> APIRouter:
    """Segment, masks, health and metrics of one service."""
    limits = service.limits

    def authorized(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
        check_token(request, service.settings.token)

    router = APIRouter()
    api = APIRouter(prefix="/v1", dependencies=[Depends(authorized)], responses=ERRORS)

    @api.post("/segment", response_model=SegmentResponse, openapi_extra=SEGMENT_BODY)
    async def segment(request: Request) -> Response:
        """Masks for one query or several about an image, with the policy's reasoning and mask prompts."""
        return await guarded(
            request, service.segment_places, service.memory, limits.seconds, partial(_segment, request, service)
        )

    @api.post("/masks", response_model=MasksResponse, openapi_extra=MASKS_BODY)
    async def masks(request: Request) -> Response:
        """Masks for boxes and points; an image that was sent before may be named by its `image_id`."""
        return await guarded(
            request, service.masks_places, service.memory, limits.seconds, partial(_masks, request, service)
        )

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
    decoding = _decoding(asked, service)

    async def answer() -> bytes:
        image_id, image = await service.open_image(data, take)
        results = await service.segment(image, asked.queries, decoding)
        return await service.in_thread(lambda: segment_body(image_id, image, results, asked))

    return await while_client_waits(request, answer())


def _decoding(asked: SegmentRequest, service: Service) -> Decoding:
    """How the answer is to be generated. Raises Refused."""
    own = service.pipeline.decoding
    try:
        chosen = own if asked.decoding is None else asked.decoding.over(own)
        return chosen if asked.turns == 1 else replace(chosen, turns=asked.turns)
    except SegrlError as error:
        raise invalid(f"decoding: {error}") from error


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
