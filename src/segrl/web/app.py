"""The server as an ASGI application: segment, masks, health and metrics, and the Label Studio backend beside them.

`bind` and `serve` run it, or another application, from start to stop.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import Annotated, Any

import uvicorn
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

    async def authorized(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
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
    try:
        return asked.decoding_over(service.pipeline.decoding)
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


def bind(host: str, port: int) -> socket.socket:
    """A socket for that address; port 0 is any free one. Nobody can connect before it listens.

    Raises SegrlError if the address cannot be had.
    """
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
    except (OSError, OverflowError) as error:
        place.close()
        raise SegrlError(f"cannot listen on {host}:{port} ({error}): choose another --port or --host") from error
    return place


def serve(app: FastAPI, place: socket.socket, *, finish_seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes what runs, and returns.

    What is not finished `finish_seconds` after the signal is given up: the process ends with a line and
    status 1, whatever its threads do.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, int(0.9 * finish_seconds)),  # then requests are ended, and say so
    )
    # uvicorn raises the signal again once it has finished; by then there is nothing left to end.
    before = {number: signal.signal(number, _already_finished) for number in (signal.SIGTERM, signal.SIGINT)}
    server = _Server(config, finish_seconds)
    try:
        server.run(sockets=[place])
    finally:
        server.last_call.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """uvicorn's server with an end: its own waits for threads that may never return."""

    def __init__(self, config: uvicorn.Config, finish_seconds: float) -> None:
        super().__init__(config)
        self.last_call = threading.Timer(finish_seconds, _give_up, (finish_seconds,))
        self.last_call.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.last_call.start()
        super().handle_exit(sig, frame)


def _give_up(seconds: float) -> None:
    sys.stderr.write(f"segrl: stopped; what was not finished after {seconds:g} seconds was given up\n")
    sys.stderr.flush()
    os._exit(1)


def _already_finished(number: int, frame: FrameType | None) -> None:
    return None
