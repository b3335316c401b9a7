"""What Prometheus reads of a server."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segrl.web.errors import CLIENT_CLOSED_REQUEST

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("segrl_requests", "Requests answered.", ["path", "code"], registry=registry)
        self.seconds = Histogram(
            "segrl_request_seconds", "Time to answer.", ["path"], buckets=SECONDS, registry=registry
        )
        self.answers = Counter(
            "segrl_answers", "Queries answered, by status of the answer.", ["status"], registry=registry
        )
        self.batches = Histogram(
            "segrl_batch_size", "Items worked on together.", ["queue"], buckets=BATCHES, registry=registry
        )
        self._waiting = Gauge("segrl_waiting", "Items that no batch has taken yet.", ["queue"], registry=registry)
        self._places = Gauge("segrl_places_taken", "Requests open.", ["queue"], registry=registry)

    def watch(self, queue: str, waiting: Callable[[], int], taken: Callable[[], int]) -> None:
        """Shows a queue and its places as they are when Prometheus asks."""
        self._waiting.labels(queue).set_function(waiting)
        self._places.labels(queue).set_function(taken)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self.registry)


class MeasuredRequests:
    """ASGI middleware that counts and times requests by route; what has no route counts as `other`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        code = CLIENT_CLOSED_REQUEST

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        began = time.monotonic()
        try:
            await self.app(scope, receive, sending)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(code)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)
