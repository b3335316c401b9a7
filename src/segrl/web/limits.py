"""What a server allows: how much, how many at once, whom; and what happens when a client leaves early."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from segrl.contours import EDITABLE_PX
from segrl.errors import SegrlError
from segrl.web.errors import Refused


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may ask at once; the same for every server of segrl.

    max_bytes: of a request's body. max_items, max_depth, max_digits: of JSON, counted before it is parsed.
    max_pixels: of an image, checked before it is decoded. max_queries: of one request. max_query_chars: of one
    query. max_prompts: mask prompts of one request. max_samples: of a vote that a request asks for.
    max_mask_pixels: of all masks of one query or one request for masks together. max_rows, max_text_chars: of the
    reward's server, completions of a request and characters of each. seconds: from a request's first byte to its
    answer, and from SIGTERM to the end. places: requests open at once, for each kind of work. places_per_client:
    how many of them one address may hold; None: three quarters. max_memory: bytes that the bodies and images of all
    open requests may take together.
    """

    max_bytes: int = 32 * 2**20
    max_items: int = 20_000
    max_depth: int = 32
    max_digits: int = 100
    max_pixels: int = 25_000_000
    max_queries: int = 16
    max_query_chars: int = 1000
    max_prompts: int = 64
    max_mask_pixels: int = 400_000_000
    max_samples: int = 16
    max_rows: int = 4096
    max_text_chars: int = 100_000
    seconds: float = 120.0
    places: int = 64
    places_per_client: int | None = None
    max_memory: int = 2 * 2**30

    @property
    def share(self) -> int:
        """Places that one client may hold, at least one."""
        return max(1, self.places * 3 // 4) if self.places_per_client is None else self.places_per_client


@dataclass(frozen=True)
class ServerSettings:
    """Everything about a server but its pipeline.

    batch_size: queries answered together. token: what clients must present, or None.
    recent_bytes: memory for images that clients name again by `image_id`. label_studio_url: the one
    host that images are fetched from; label_studio_key: its access token, personal or legacy.
    polygon_tolerance_px: of Label Studio's polygons (`contours.simplify`), 0 for exact ones. allow_origins: web
    pages of other origins that may ask. Raises SegrlError for values that mean nothing.
    """

    limits: Limits = field(default_factory=Limits)
    batch_size: int = 8
    token: str | None = None
    recent_bytes: int = 256 * 2**20
    label_studio_url: str | None = None
    label_studio_key: str | None = None
    polygon_tolerance_px: float = EDITABLE_PX
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise SegrlError("the token is empty: give one, or leave the option out to ask for none")
        if self.label_studio_url is not None:
            parts = urlsplit(self.label_studio_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise SegrlError(f"not the address of a Label Studio: {self.label_studio_url}; it begins with http://")


T = TypeVar("T")
Take = Callable[[int], None]
"""Asks for so many bytes of memory."""


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
    """At most `total` requests at once, `share` of one client; the next one is refused and told when to come again."""

    def __init__(self, total: int, share: int | None = None, wait_seconds: Callable[[], float] = lambda: 1.0) -> None:
        self.total, self.share, self.taken = total, total if share is None else share, 0
        self._wait_seconds = wait_seconds
        self._clients: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, client: str) -> AsyncIterator[None]:
        """Holds a place. Raises Refused with Retry-After: 503 when all are taken, 429 when the client has its share."""
        if self.taken >= self.total:
            raise Refused(503, "busy", f"all {self.total} places are taken", self._again())
        if self._clients[client] >= self.share:
            detail = f"one client may have {self.share} requests open at once"
            raise Refused(429, "too_many_requests", detail, self._again())
        self.taken += 1
        self._clients[client] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def _again(self) -> dict[str, str]:
        return {"Retry-After": str(min(60, max(1, math.ceil(self._wait_seconds()))))}


class Memory:
    """`total` bytes for the bodies and images of all open requests."""

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0

    @contextmanager
    def holding(self) -> Iterator[Take]:
        """A function that takes so many bytes more until the block ends. It raises Refused: 503 while others
        have them, 413 for more than there are."""
        mine = 0

        def take(n_bytes: int) -> None:
            nonlocal mine
            if mine + n_bytes > self.total:
                raise Refused(413, "too_large", "the request needs more memory than this server gives to requests")
            if self.taken + n_bytes > self.total:
                raise Refused(503, "busy", "other requests have the memory of this server", {"Retry-After": "1"})
            mine += n_bytes
            self.taken += n_bytes

        try:
            yield take
        finally:
            self.taken -= mine


def client_of(request: Request) -> str:
    """The address that asks; a proxy on this machine may say for whom (X-Forwarded-For)."""
    return request.client.host if request.client else ""


async def guarded(
    request: Request, places: Places, memory: Memory, seconds: float, work: Callable[[Take], Awaitable[bytes]]
) -> Response:
    """The JSON that `work` makes, with a place and its memory held and the clock running from the first byte on."""
    async with places.one(client_of(request)), asyncio.timeout(seconds):
        with memory.holding() as take:
            return Response(await work(take), media_type="application/json")


BODY_COPIES = 3
"""The bytes that a body takes while it is read, parsed and decoded, in its own lengths."""


async def read_body(request: Request, max_bytes: int, take: Take = lambda n_bytes: None) -> bytes:
    """The whole body, its memory asked of `take` as it comes. Raises Refused(413) for one larger than `max_bytes`.

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
            take(BODY_COPIES * len(chunk))
            body += chunk
        elif size > 2 * max_bytes:
            break
    if size > max_bytes:
        raise too_large
    return bytes(body)


_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""JSON's strings; one that is never closed reaches to the end, so that the search is linear on any bytes."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_json(body: bytes, limits: Limits, *, name: str = "the body", max_items: int | None = None) -> None:
    """Counts what JSON holds before anything parses it; linear in its length, whatever the bytes are.

    Raises Refused(422) for more than `max_items` values in lists and objects together, more than `max_depth`
    brackets within each other, or a number of more than `max_digits` digits.
    """
    most = limits.max_items if max_items is None else max_items
    bare = _STRINGS.sub(b'""', body)
    brackets = bare.translate(None, delete=_NO_BRACKETS)
    if bare.count(b",") + len(brackets) // 2 > most:
        raise Refused(422, "too_many_items", f"{name} holds more than {most} values")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.max_depth:
            raise Refused(422, "too_deep", f"{name} nests more than {limits.max_depth} brackets")
    if re.search(rb"[0-9]{%d}" % (limits.max_digits + 1), bare):
        raise Refused(422, "too_many_digits", f"{name} has a number of more than {limits.max_digits} digits")


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
        del task, gone, each  # an error's traceback holds this frame: it must not hold the error in turn


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
