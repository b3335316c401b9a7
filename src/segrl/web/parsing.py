"""A request's body as one of the models in `schemas`, whichever way it was sent.

Forms are read in memory: there is no temporary file, however a request ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import python_multipart.multipart as reader
from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError

from segrl.web.errors import Refused, first_fault, invalid
from segrl.web.images import from_base64
from segrl.web.limits import Limits, Take, check_json, read_body
from segrl.web.schemas import MasksRequest, SegmentRequest

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken body


@dataclass
class Part:
    """One field. name: None in a part that names none. is_file: it came with a file name."""

    name: str | None = None
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        """The value of a field that is no file. Raises Refused(400) if it is not UTF-8."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken("a field is not UTF-8") from error


def parse_form(content_type: str, body: bytes, max_parts: int) -> list[Part]:
    """The parts of a body in order. Raises Refused: 400 for one that is broken or ends early, 422 for too many."""
    boundary = reader.parse_options_header(content_type)[1].get(b"boundary", b"")
    collector = _Collector(max_parts)
    try:
        parser = reader.MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _broken("the form cannot be read") from error
    if not collector.ended:
        raise _broken("the form ends early")
    return collector.parts


class _Collector:
    """What the parser tells, put together."""

    def __init__(self, max_parts: int) -> None:
        self.max_parts, self.parts, self.ended = max_parts, list[Part](), False
        self._field, self._value = b"", b""

    def callbacks(self) -> reader.MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self.max_parts:
            raise Refused(422, "too_many_fields", f"the form has more than {self.max_parts} fields")
        self.parts.append(Part())

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            options = reader.parse_options_header(self._value)[1]
            if b"name" in options:
                self.parts[-1].name = options[b"name"].decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in options
        self._field, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _end(self) -> None:
        self.ended = True


def _broken(detail: str) -> Refused:
    return Refused(400, "broken_form", detail)


Asked = TypeVar("Asked", SegmentRequest, MasksRequest)
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


class InThread(Protocol):
    """Runs a function beside the event loop and gives its outcome."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


FIELDS = 6
"""Fields of a form beside its queries."""
SENT = "<sent as a file>"
"""What stands in the place of an image that came as a multipart file."""


async def read(
    request: Request, model: type[Asked], limits: Limits, take: Take, in_thread: InThread
) -> tuple[Asked, bytes | None]:
    """What was asked, and the image file; None where the request names an image instead.

    take: asked for the body's memory. in_thread: does the parsing beside the event loop. Raises Refused: 413 for a
    body that is too large, 415 for another type than JSON and multipart/form-data, 400 for a broken body, 422 for
    one that makes no sense.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    body = await read_body(request, limits.max_bytes, take)
    if kind == "multipart/form-data":
        return await in_thread(
            lambda: _from_form(parse_form(content_type, body, FIELDS + limits.max_queries), model, limits)
        )
    if kind != "application/json":
        raise Refused(415, "unsupported_media_type", "send application/json or multipart/form-data")
    return await in_thread(lambda: _from_json(body, model, limits))


def _from_json(body: bytes, model: type[Asked], limits: Limits) -> tuple[Asked, bytes | None]:
    asked = validated(model, body, limits)
    return asked, None if asked.image is None else from_base64(asked.image)


def validated(
    model: type[Model], body: bytes | Mapping[str, Any], limits: Limits, *, max_items: int | None = None
) -> Model:
    """`body`, JSON or what stood in it, as the model.

    Raises Refused: 400 for broken JSON, 422 for more of anything than the limits allow and for what makes no sense.
    """
    try:
        if not isinstance(body, bytes):
            return model.model_validate(body)
        check_json(body, limits, max_items=max_items)
        return model.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        if fault["type"] != "json_invalid":
            raise invalid(first_fault(error)) from error
        if "surrogate" in str(fault.get("ctx")) or "hex escape" in str(fault.get("ctx")):
            raise invalid("a text holds half of a surrogate pair") from error
        raise Refused(400, "not_json", "the body is not valid JSON") from error


def _from_form(parts: Sequence[Part], model: type[Asked], limits: Limits) -> tuple[Asked, bytes | None]:
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
            fields[name] = _parsed(name, part.text, limits)
    return validated(model, fields, limits), data


def _parsed(name: str, text: str, limits: Limits) -> Any:
    """A field's value; `prompts` and `decoding` are JSON inside the form."""
    if name not in ("prompts", "decoding"):
        return text
    check_json(text.encode(), limits, name=name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{name}: not valid JSON") from error
