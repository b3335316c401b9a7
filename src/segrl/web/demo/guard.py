"""What reaches Gradio: the page's own requests, of bounded size, that name no file but a visitor's upload.

Gradio has checks of its own for paths; this one does not rest on them. It stands before the application, lets
through the routes that the page uses, and reads every event before Gradio does.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import stat
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segrl.web.errors import Refused, first_fault, invalid, translate
from segrl.web.limits import Limits, Memory, Places, Take, check_json, read_body

API = "/gradio_api"
_PAGE = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
_STATE = ("queue/data", "queue/status", "upload_progress", "startup-events", "app_id", "info")
READ = frozenset([*_PAGE, *(f"{API}/{name}" for name in _STATE)])
READ_UNDER = ("/assets/", "/static/", "/svelte/", "/files/", f"{API}/heartbeat/")
EVENTS = frozenset(f"{API}/{name}" for name in ("queue/join", "reset", "reset/", "cancel"))
JOIN = f"{API}/queue/join"
UPLOAD, FILE = f"{API}/upload", f"{API}/file="

MAX_EVENT = 1_000_000
"""Bytes of an event: a query, or boxes and points."""
HEADS = 100_000
"""Bytes of an upload beside the file: the parts' headers."""
STREAM, HEARTBEAT = f"{API}/queue/data", f"{API}/heartbeat/"
STREAMS = 4
"""Streams of events that may be open for each place: a page that is looked at holds up to two."""
UNHEARD, HEARD = 20, 1_000
"""Events of a session that does not listen, and of one that does, until it listens anew: Gradio keeps the answers of
each until they are read."""
SESSIONS = 5_000
"""Sessions whose events are counted; Gradio keeps the answers of fewer."""


def uploaded(path: object, folder: Path, max_bytes: int) -> Path:
    """The file that a visitor uploaded. Raises Refused(422) for any other path: outside of the folder, through a
    link, a device, not there, or larger than `max_bytes`."""
    refused = invalid("picture: not a file that was uploaded here")
    if not isinstance(path, str) or "\0" in path:
        raise refused
    try:
        real = Path(os.path.realpath(path))
        about = os.lstat(real)
    except (OSError, ValueError) as error:
        raise refused from error
    if not real.is_relative_to(folder.resolve()) or not stat.S_ISREG(about.st_mode):
        raise refused
    if about.st_size > max_bytes:
        raise Refused(413, "body_too_large", f"the picture is larger than {max_bytes} bytes")
    return real


class Event(BaseModel):
    """What Gradio is sent of a visitor, in so far as it is read here: a call of one of the page's functions, or the
    wish to end one."""

    data: list[Any] = []
    fn_index: int | None = None
    session_hash: Annotated[str, Field(max_length=100)] | None = None
    event_id: Annotated[str, Field(max_length=100)] | None = None
    trigger_id: int | None = None


def check_event(body: bytes, folder: Path, limits: Limits) -> Event:
    """Raises Refused for an event that is no JSON, holds too much, or names an address or a file not uploaded here."""
    check_json(body, limits)
    try:
        value = json.loads(body, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise invalid("a text holds half of a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, "not_json", "the body is not valid JSON of finite numbers") from error
    try:
        event = Event.model_validate(value)
    except ValidationError as error:
        raise invalid(first_fault(error)) from error
    for one in _objects(value):
        if one.get("path") is not None:
            uploaded(one["path"], folder, limits.max_bytes)
        elif one.get("url") is not None:
            raise invalid("picture: this server fetches no addresses; upload the picture itself")
        if str(one.get("url") or "").startswith("data:"):
            raise invalid("picture: upload it as a file")
    return event


def _finite(text: str) -> float:
    """Raises ValueError for what JSON has no number for."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


class Listeners:
    """Which sessions listen to the answers of their events. forget: told of a session that was silent for long."""

    def __init__(self, forget: Callable[[str], object]) -> None:
        self._forget = forget
        self._listening: Counter[str] = Counter()
        self._sent: OrderedDict[str, int] = OrderedDict()

    def sends(self, session: str) -> None:
        """Notes an event. Raises Refused(429) for one more than `UNHEARD` or `HEARD`."""
        n = self._sent.get(session, 0) + 1
        if n > (HEARD if self._listening.get(session) else UNHEARD):
            raise Refused(429, "unheard", "nobody listens to the answers of this session", {"Retry-After": "1"})
        self._sent[session] = n
        self._sent.move_to_end(session)
        if len(self._sent) > SESSIONS and not self._listening.get(next(iter(self._sent))):
            self._forget(self._sent.popitem(last=False)[0])

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """While the session's stream is open."""
        self._sent.pop(session, None)
        self._listening[session] += 1
        try:
            yield
        finally:
            self._listening[session] -= 1
            if not self._listening[session]:
                del self._listening[session]


class Guard:
    """ASGI middleware around the page. folder: of the uploads, for this process alone. max_disk: bytes that it may
    hold; further uploads are refused until Gradio has deleted old ones. functions: those of the page. forget: see
    `Listeners`."""

    def __init__(
        self,
        app: ASGIApp,
        folder: Path,
        limits: Limits,
        max_disk: int,
        functions: Collection[int],
        forget: Callable[[str], object],
    ) -> None:
        self.app, self.folder, self.limits, self.max_disk = app, folder, limits, max_disk
        self.functions, self.listeners = functions, Listeners(forget)
        self.streams = Places(STREAMS * limits.places, STREAMS * limits.share)
        self.places, self.memory = Places(limits.places, limits.share), Memory(limits.max_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        try:
            if scope.get("method") != "POST":
                self._check_read(scope)
                return await self._read(scope, receive, send)
            async with self.places.one(_client(scope)):
                with self.memory.holding() as take:
                    async with asyncio.timeout(self.limits.seconds):
                        body = await self._checked_body(scope, receive, take)
                    await self.app(scope, _replaying(body, receive), send)
        except (Refused, TimeoutError) as error:
            refused = translate(error)
            content = {"error": refused.code, "detail": refused.detail}
            headers = {**refused.headers, "Connection": "close"}
            await JSONResponse(content, refused.status, headers)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != STREAM and not scope["path"].startswith(HEARTBEAT):
            return await self.app(scope, receive, send)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        session = query.get("session_hash", "") if scope["path"] == STREAM else ""
        async with self.streams.one(_client(scope)):
            with self.listeners.listening(session) if session else nullcontext():
                await self.app(scope, receive, send)

    def _check_read(self, scope: Scope) -> None:
        path = scope["path"]
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            if path.startswith(FILE):
                uploaded(path.removeprefix(FILE), self.folder, self.limits.max_bytes)
                return
            if path in READ or (path.startswith(READ_UNDER) and ".." not in path):
                return
        raise Refused(404, "not_found", "there is nothing here")

    async def _checked_body(self, scope: Scope, receive: Receive, take: Take) -> bytes:
        if scope["path"] in EVENTS:
            body = await _body(scope, receive, MAX_EVENT, take)
            event = await run_sync(check_event, body, self.folder, self.limits)
            if scope["path"] == JOIN and (event.fn_index not in self.functions or event.session_hash is None):
                raise invalid("fn_index: no function of this page")
            if scope["path"] == JOIN and event.session_hash is not None:
                self.listeners.sends(event.session_hash)
            return body
        if scope["path"] != UPLOAD:
            raise Refused(404, "not_found", "there is nothing here")
        body = await _body(scope, receive, self.limits.max_bytes + HEADS, take)
        if await run_sync(self._disk) > self.max_disk:
            raise Refused(503, "full", "this server holds all the pictures that it may", {"Retry-After": "60"})
        return body

    def _disk(self) -> int:
        """Bytes of all uploads; Gradio may delete some meanwhile."""
        total = 0
        for one in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                about = one.lstat()
                total += about.st_size if stat.S_ISREG(about.st_mode) else 0
        return total


def _client(scope: Scope) -> str:
    return (scope.get("client") or ("", 0))[0]


async def _body(scope: Scope, receive: Receive, max_bytes: int, take: Take) -> bytes:
    try:
        return await read_body(Request(scope, receive), max_bytes, take)
    except ClientDisconnect:
        raise Refused(400, "broken", "the body ends early") from None


def _replaying(body: bytes, receive: Receive) -> Receive:
    """`receive` after a body that was read before."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again
