"""The server as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from segrl import __version__
from segrl.pipeline import Pipeline
from segrl.web import errors, label_studio, routes, schemas
from segrl.web.limits import ServerSettings
from segrl.web.metrics import MeasuredRequests
from segrl.web.service import Service

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
    app.include_router(routes.build(service))
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
