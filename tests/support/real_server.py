"""Servers of other projects on loopback, for the tests: waited for until they answer, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")

Start = Callable[[int], subprocess.Popen[bytes]]
"""A port → the server's process, in a session of its own."""


@contextmanager
def served(start: Start, log: Path) -> Iterator[tuple[int, list[subprocess.Popen[bytes]]]]:
    """A port, and the servers that were started on it; the last one is ended. log: what is shown where one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [start(port)]
    try:
        wait_for(port, running[0], log)
        yield port, running
    finally:
        kill(running[-1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, patience_s: float = 900) -> None:
    """Until the server says that it is well."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the server and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def asked_through_a_kill(
    ask: Callable[[], Iterable[T]],
    running: list[subprocess.Popen[bytes]],
    start: Callable[[], subprocess.Popen[bytes]],
    after_s: float,
) -> list[T]:
    """What `ask` returns, whose server is killed after a while and started again."""
    found: list[T] = []
    asking = threading.Thread(target=lambda: found.extend(ask()))
    asking.start()
    time.sleep(after_s)
    kill(running[-1])
    assert asking.is_alive()
    running.append(start())
    asking.join(timeout=2400)
    assert not asking.is_alive()
    return found
