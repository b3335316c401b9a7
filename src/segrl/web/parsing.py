"""A request's body as one of the models in `schemas`, whichever way it was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from segrl.web import multipart
from segrl.web.errors import Refused, first_fault, invalid
from segrl.web.images import from_base64
from segrl.web.limits import read_body
from segrl.web.multipart import Part
from segrl.web.schemas import MasksRequest, SegmentRequest
from segrl.web.settings import Limits

Asked = TypeVar("Asked", SegmentRequest, MasksRequest)

FIELDS = 4
"""Fields of a form beside its queries."""
SENT = "<sent as a file>"
"""What stands in the place of an image that came as a multipart file."""


async def read(request: Request, model: type[Asked], limits: Limits) -> tuple[Asked, bytes | None]:
    """What was asked, and the image file; None where the request names an image instead.

    Raises Refused: 413 for a body that is too large, 415 for another type than JSON and
    multipart/form-data, 400 for a broken body, 422 for one that makes no sense.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, limits.max_bytes)
    if kind == "multipart/form-data":
        parts = multipart.parse(request.headers["content-type"], body, FIELDS + limits.max_queries)
        return _from_form(parts, model)
    if kind != "application/json":
        raise Refused(415, "unsupported_media_type", "send application/json or multipart/form-data")
    asked = validated(model, body)
    return asked, None if asked.image is None else from_base64(asked.image)


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], body: bytes | Mapping[str, Any]) -> Model:
    """`body`, JSON or what stood in it, as the model. Raises Refused: 400 for broken JSON, else 422."""
    try:
        return model.model_validate_json(body) if isinstance(body, bytes) else model.model_validate(body)
    except ValidationError as error:
        if error.errors(include_input=False, include_context=False)[0]["type"] == "json_invalid":
            raise Refused(400, "not_json", "the body is not valid JSON") from error
        raise invalid(first_fault(error)) from error


def _from_form(parts: Sequence[Part], model: type[Asked]) -> tuple[Asked, bytes | None]:
    fields: dict[str, Any] = {}
    data = None
    for part in parts:
        name = part.name or ""
        if name in fields and name != "query":
            raise invalid(f"{name}: given twice")
        if name == "image":
            data, fields[name] = bytes(part.data) if part.is_file else from_base64(part.text), SENT
        elif part.is_file:
            raise invalid(f"{name}: not a file")
        elif name == "query":
            fields.setdefault(name, []).append(part.text)
        else:
            fields[name] = _parsed(name, part.text)
    return validated(model, fields), data


def _parsed(name: str, text: str) -> Any:
    """A field's value; `prompts` is JSON inside the form."""
    if name != "prompts":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("prompts: not valid JSON") from error
