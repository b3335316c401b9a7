"""A server on the loopback with OpenAI's chat completions, whose every answer a test chooses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


@dataclass(frozen=True)
class Reply:
    """What the server sends: a status, a body (JSON unless it is bytes) and headers.

    drop: close the connection without an answer. delay_s: after that long.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False


def text(content: str | None, finish: str = "stop", tokens: int = 7, **message: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message, "finish_reason": finish}
    return Reply({"choices": [choice], "usage": {"completion_tokens": tokens}})


Behaviour = Callable[[int, dict[str, Any]], Reply]


@dataclass
class FakeServer:
    """url: with /v1. asked: the bodies of the chat requests, in the order in which they came. keys: their
    Authorization headers. most_at_once: the most requests that were under way together."""

    behaviour: Behaviour
    owned_by: str = "vllm"
    models: tuple[str, ...] = (MODEL,)
    models_status: int = 200
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], key: str | None) -> Reply:
        with self._lock:
            number = len(self.asked)
            self.asked.append(body)
            self.keys.append(key)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        reply = self.behaviour(number, body)
        time.sleep(reply.delay_s)
        with self._lock:
            self._under_way -= 1
        return reply

    def list_models(self) -> Reply:
        rows = [{"id": name, "object": "model", "owned_by": self.owned_by} for name in self.models]
        return Reply({"object": "list", "data": rows}, self.models_status)


@contextmanager
def serving(behaviour: Behaviour | Reply, **options: Any) -> Iterator[FakeServer]:
    """The server while the block runs; one reply, or a function of the request's number and body."""
    fake = FakeServer(behaviour if callable(behaviour) else lambda *_: behaviour, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(fake.list_models() if self.path == "/v1/models" else Reply({"error": "no such page"}, 404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(fake.answer(body, self.headers["Authorization"]))

        def _send(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that timed out has gone: nothing to say about it."""

    http = Quiet(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
