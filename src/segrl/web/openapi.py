"""The requests' part of the OpenAPI page; FastAPI cannot derive it, since a body comes in one of two types."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from segrl.web.schemas import ErrorBody, MasksRequest, SegmentRequest

REF = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary", "description": "An image file."}
_FORMAT = {"type": "string", "enum": ["rle", "polygon", "png"], "default": "rle"}

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body cannot be read."},
    401: {"model": ErrorBody, "description": "The token is missing or wrong."},
    404: {"model": ErrorBody, "description": "The image is not known here (any more)."},
    408: {"model": ErrorBody, "description": "The request took longer than the server allows."},
    413: {"model": ErrorBody, "description": "Too many bytes or pixels."},
    415: {"model": ErrorBody, "description": "Neither JSON nor multipart/form-data."},
    422: {"model": ErrorBody, "description": "The request makes no sense, or asks for too much."},
    503: {"model": ErrorBody, "description": "All places are taken; Retry-After says when to come again."},
}

SEGMENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": REF.format(model="SegmentRequest")}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "query"],
                    "properties": {
                        "image": _FILE,
                        "query": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
                        "mask_format": _FORMAT,
                    },
                },
                "encoding": {"query": {"style": "form", "explode": True}},
            },
        },
    }
}

MASKS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": REF.format(model="MasksRequest")}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "prompts"],
                    "properties": {
                        "image": _FILE,
                        "prompts": {"type": "string", "description": "JSON: a list of Prompt."},
                        "mask_format": _FORMAT,
                    },
                }
            },
        },
    }
}


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` hold the models that request bodies refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, models = models_json_schema(
                [(SegmentRequest, "validation"), (MasksRequest, "validation")], ref_template=REF
            )
            page.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
