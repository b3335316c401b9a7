"""A server spoken to over HTTP and JSON: retries, time-outs, and errors that fit on one line."""

from __future__ import annotations

import email.utils
import json
import os
import random
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from segrl.errors import ModelError, ServerError

KEY_VARIABLE = "SEGRL_API_KEY"
"""The environment variable that holds the key for a server, unless another is named."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})
"""Hosts that are asked without the proxy that the environment may name."""

CONNECT_S = 10.0
MAX_WAIT_S = 60.0

_T = TypeVar("_T")


class Server:
    """One server of an OpenAI-compatible API. Threads may share it.

    base_url: with the version, for instance `http://localhost:8000/v1`. key: sent as bearer token,
    and taken out of every message. timeout_s: the longest silence while an answer is awaited.
    retries: further attempts after one that failed for a reason that may pass (AGAIN, a broken
    connection, a time-out, an answer that cannot be read); between them it waits `backoff_s`, then
    twice that and so on with some randomness, or as long as the server's Retry-After says, at most
    MAX_WAIT_S. Raises ModelError for an address that is none.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout_s: float = 300.0,
        retries: int = 5,
        backoff_s: float = 1.0,
        connections: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        host = _checked_host(base_url)
        self.base_url, self._key = base_url.rstrip("/"), key
        self._retries, self._backoff_s, self._sleep = retries, backoff_s, sleep
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=host not in LOCAL_HOSTS,
        )
        self.close = weakref.finalize(self, self._client.close)
        """Closes the connections; done by itself when nobody holds the server any more."""

    def get(self, path: str, read: Callable[[Any], _T]) -> _T:
        """`read` of the JSON under `path`. See `post`."""
        return self._attempts(lambda: self._client.get(f"{self.base_url}/{path}"), read)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], _T]) -> _T:
        """`read` of the JSON that answers `body`.

        `read` raises KeyError, TypeError, IndexError or ValueError for what is no answer; that is
        tried again like any passing fault. Raises ServerError, one line that names the server.
        """
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._attempts(
            lambda: self._client.post(f"{self.base_url}/{path}", content=content, headers=headers), read
        )

    def _attempts(self, send: Callable[[], httpx.Response], read: Callable[[Any], _T]) -> _T:
        for attempt in range(self._retries + 1):
            wait_s = None
            try:
                response = send()
                if response.is_success:
                    return read(response.json())
                fault, status = self._refusal(response), response.status_code
                if status not in AGAIN:
                    raise ServerError(f"{self.base_url} {fault}", status)
                wait_s = retry_after_s(response.headers.get("Retry-After"))
            except httpx.TimeoutException:
                fault, status = "did not answer in time", None
            except httpx.HTTPError as error:
                fault, status = f"cannot be reached: {self._clean(str(error) or type(error).__name__)}", None
            except (KeyError, TypeError, IndexError, ValueError) as error:
                fault, status = f"gave an answer that cannot be read ({self._clean(repr(error))})", None
            if attempt < self._retries:
                self._sleep(_delay_s(attempt, self._backoff_s) if wait_s is None else min(wait_s, MAX_WAIT_S))
        times = "once" if self._retries == 0 else f"{self._retries + 1} times"
        raise ServerError(f"{self.base_url} {fault} (asked {times})", status)

    def _refusal(self, response: httpx.Response) -> str:
        """What a failed response says, in one line."""
        try:
            said = response.json()
            error = said.get("error", said)
            text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            text = response.text
        reason = self._clean(str(text or response.reason_phrase))
        hint = f" (the key is read from the environment variable {KEY_VARIABLE})" if response.status_code == 401 else ""
        return f"answered {response.status_code}: {reason}{hint}"

    def _clean(self, text: str) -> str:
        """One line of at most 200 characters without the key."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:200]


def _checked_host(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.port is None or parts.port else None
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ModelError(f"{base_url!r} is not the URL of a server: write http://host:port/v1")
    if parts.username is not None or parts.password is not None:
        raise ModelError(f"a URL must not contain a password: put the key into {KEY_VARIABLE}")
    return host


def read_key(variable: str | None) -> str | None:
    """The key in an environment variable; None if KEY_VARIABLE is not set. Raises ModelError if a named one is not."""
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable is not None and not key:
        raise ModelError(f"the environment variable {variable}, which should hold the server's key, is not set")
    return key or None


def retry_after_s(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, written as seconds or as a date; None if there is none to be read.

    >>> retry_after_s("2.5"), retry_after_s("soon"), retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT")
    (2.5, None, 0.0)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None


def _delay_s(attempt: int, backoff_s: float) -> float:
    """Twice as long after each attempt, up to half of it at random, so that callers do not come back together."""
    return float(min(backoff_s * 2**attempt, MAX_WAIT_S) * random.uniform(0.5, 1.0))
