"""Memory after requests: what ended is let go of at once, whatever way it ended."""

from __future__ import annotations

import gc
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import attacks
import pytest
from PIL import Image
from serving import Running, eventually, png, running, text_of

from segrl.web.limits import Limits, ServerSettings
from segrl.web.service import CODEC_THREADS

LARGE = 50_000
"""Bytes from which something is the body or the pixels of a request."""


@contextmanager
def serving(seconds: float) -> Iterator[Running]:
    limits = Limits(max_bytes=2**20, max_pixels=4_000_000, max_mask_pixels=8_000_000, seconds=seconds)
    with running(ServerSettings(limits=limits, recent_bytes=0)) as served:
        yield served


def ask(url: str, path: str, body: bytes) -> int:
    """The status. A client that leaves little behind itself, for it lives in the server's process."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request("POST", path, body, {"content-type": "application/json", "connection": "close"})
    status = connection.getresponse().status
    connection.close()
    return status


def large(value: object) -> bool:
    """Whether it is a text, bytes or an image of a request's size."""
    if isinstance(value, Image.Image):
        return value.width * value.height * 3 > LARGE
    return isinstance(value, str | bytes | bytearray) and len(value) > LARGE


PICTURE = text_of(attacks.picture((2_000, 1_990), "PNG"))
BROKEN = text_of(png((300, 300))[:-20] + b"\0" * 100_000)
REQUESTS = {
    "no JSON": (400, "/v1/segment", b"{" + b"-" * 200_000),
    "too many values": (422, "/v1/masks", json.dumps({"prompts": [7] * 100_000}).encode()),
    "the wrong kind": (422, "/v1/segment", json.dumps({"image": "A" * 200_000, "query": 7}).encode()),
    "no picture": (422, "/v1/segment", json.dumps({"image": BROKEN, "query": "none"}).encode()),
    "too many masks": (
        413,
        "/v1/masks",
        json.dumps({"image": PICTURE, "prompts": [{"box_xyxy": [0, 0, 9, 9]}] * 9}).encode(),
    ),
    "a fault of ours": (500, "/v1/segment", json.dumps({"image": PICTURE, "query": "fail"}).encode()),
    "too slow": (408, "/v1/segment", json.dumps({"image": PICTURE, "query": "wait"}).encode()),
    "an answer": (200, "/v1/segment", json.dumps({"image": PICTURE, "query": "none"}).encode()),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_that_ended_waits_for_no_garbage_collection(kind):
    """Python's collector runs rarely where much is alive; until then garbage in cycles would hold every body."""
    status, path, body = REQUESTS[kind]
    with serving(seconds=1 if status == 408 else 60) as server:
        ask(server.url, "/v1/masks", b"{}")
        gc.collect()
        gc.disable()
        try:
            assert ask(server.url, path, body) == status
            server.policy.go.set()
            time.sleep(0.5)  # the connection is closed, and what "wait" had begun is over
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = {id(one): one for garbage in gc.garbage for one in (garbage, *gc.get_referents(garbage))}
            assert not [type(one).__name__ for one in found.values() if large(one)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_clients_that_hang_up_start_no_further_threads():
    """What they had begun is finished, by at most two threads for pictures and one for each queue: each thread more
    would hold a picture more."""
    body = json.dumps({"image": PICTURE, "query": "none"}).encode()
    with serving(seconds=60) as server:
        before = set(threading.enumerate())
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(attacks.http("/v1/segment", body))
                time.sleep(0.01)
        started = set(threading.enumerate()) - before
        assert len(started) <= CODEC_THREADS + 2, [one.name for one in started]
        eventually(lambda: server.service.memory.taken == 0)
