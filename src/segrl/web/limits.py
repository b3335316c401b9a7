"""What a server allows: how much, how many at once, whom; and what happens when a client leaves early."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request
from starlette.requests import ClientDisconnect

from segrl.errors import SegrlError
from segrl.web.errors import Refused


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may ask at once.

    max_bytes: of a request's body. max_pixels: of an image, checked before it is decoded.
    max_queries: of one request. max_query_chars: of one query. max_prompts: mask prompts of one
    request. seconds: from a request's first byte to its answer. places: requests open at once, for
    each kind of work; together with max_pixels it bounds the memory that images take (3 bytes a pixel).
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    max_queries: int = 16
    max_query_chars: int = 1000
    max_prompts: int = 64
    seconds: float = 120.0
    places: int = 64


@dataclass(frozen=True)
class ServerSettings:
    """Everything about a server but its pipeline.

    batch_size: queries answered together. token: what clients must present, or None.
    recent_bytes: memory for images that clients name again by `image_id`. label_studio_url: the one
    host that images are fetched from; label_studio_key: its access token. allow_origins: web pages
    of other origins that may ask. Raises SegrlError for values that mean nothing.
    """

    limits: Limits = field(default_factory=Limits)
    batch_size: int = 8
    token: str | None = None
    recent_bytes: int = 256 * 2**20
    label_studio_url: str | None = None
    label_studio_key: str | None = None
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise SegrlError("the token is empty: give one, or leave the option out to ask for none")
        if self.label_studio_url is not None:
            parts = urlsplit(self.label_studio_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise SegrlError(f"not the address of a Label Studio: {self.label_studio_url}; it begins with http://")


T = TypeVar("T")


def check_token(request: Request, token: str | None) -> None:
    """Raise Refused(401) unless the request presents `token` as a bearer token or as a Basic password.

    Compared in constant time. Basic is what Label Studio can send. None lets everybody in.
    """
    if token is None:
        return
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    given = value.strip() if kind.lower() == "bearer" else _basic_password(value) if kind.lower() == "basic" else ""
    if not secrets.compare_digest(given.encode(errors="replace"), token.encode()):
        raise Refused(
            401, "unauthorized", "this server wants Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )


def _basic_password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


class Places:
    """At most `total` requests at once; the next one is refused and told when to come again."""

    def __init__(self, total: int, wait_seconds: Callable[[], float] = lambda: 1.0) -> None:
        self.total, self.taken = total, 0
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Holds a place. Raises Refused(503) with Retry-After when all are taken."""
        if self.taken >= self.total:
            retry = min(60, max(1, math.ceil(self._wait_seconds())))
            raise Refused(503, "busy", f"all {self.total} places are taken", {"Retry-After": str(retry)})
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises Refused(413) for one larger than `max_bytes`.

    A body up to twice as large is read to its end, and forgotten, so that its sender hears the answer
    instead of a closed connection.
    """
    too_large = Refused(413, "body_too_large", f"the body is larger than {max_bytes} bytes", {"Connection": "close"})
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > 2 * max_bytes:
        raise too_large
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            body += chunk
        elif size > 2 * max_bytes:
            break
    if size > max_bytes:
        raise too_large
    return bytes(body)


async def while_client_waits(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`; it is cancelled, and ClientDisconnect raised, if the client goes away.

    The body must have been read.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
