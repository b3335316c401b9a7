"""Requests that are not answered, and how that is said: `{"error": CODE, "detail": ONE LINE}`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segrl.errors import DataError, FrameError, ModelError
from segrl.segmenters.protocol import ImageTooLarge

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""What logs and metrics say of a client that went away; nobody is there to read it."""


class Refused(Exception):
    """A request that is not answered. detail: one line for the client; it names nothing of the server."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, dict(headers or {})


def invalid(detail: str) -> Refused:
    """422: the request can be read and does not make sense."""
    return Refused(422, "invalid_request", detail)


def first_fault(error: ValidationError) -> str:
    """Pydantic's first complaint as one line, without the value that it is about."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) if isinstance(part, int) else part[:60] for part in fault["loc"])
    return one_line(f"{where}: {fault['msg']}" if where else fault["msg"])


_FOLDERS = re.compile(r"(?<![\w.])(?:~|\.{1,2})?/(?:[^/\s'\"]+/)+")
_LONGEST = 400


def one_line(error: BaseException | str) -> str:
    """An error's text for a client: one line of at most 400 characters, without folders of the server."""
    text = _FOLDERS.sub("", " ".join(str(error).split()))
    printable = text.encode("utf-8", "replace").decode()
    return printable if len(printable) <= _LONGEST else printable[: _LONGEST - 1] + "…"


def translate(error: Exception) -> Refused:
    """What a client is told of an error raised while its request was worked on."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, TimeoutError):
        return Refused(408, "too_slow", "the request took longer than this server allows: ask for less at once")
    if isinstance(error, DataError | FrameError):
        return invalid(one_line(error))
    if isinstance(error, ImageTooLarge) or isinstance(error.__cause__, ImageTooLarge):
        return Refused(413, "image_too_large", "the image does not fit in the memory of this server's device")
    return Refused(500, "internal_error", "the server failed at this request; its log says why")


def _answer(refused: Refused) -> JSONResponse:
    content = {"error": refused.code, "detail": refused.detail}
    return JSONResponse(content, status_code=refused.status, headers=refused.headers)


async def _on_error(request: Request, error: Exception) -> Response:
    refused = translate(error)
    if refused.status >= 500 and not isinstance(error, Refused):
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(refused)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return _answer(Refused(error.status_code, code, str(error.detail), error.headers))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def install(app: FastAPI) -> None:
    """Makes every error of the application one of the answers above."""
    for kind in (Refused, TimeoutError, DataError, FrameError, ModelError, Exception):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
