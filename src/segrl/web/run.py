"""A server from start to stop."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from segrl.errors import SegrlError


def bind(host: str, port: int) -> socket.socket:
    """A socket for that address; port 0 is any free one. Nobody can connect before it listens.

    Raises SegrlError if the address cannot be had.
    """
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
    except (OSError, OverflowError) as error:
        place.close()
        raise SegrlError(f"cannot listen on {host}:{port} ({error}): choose another --port or --host") from error
    return place


def serve(app: FastAPI, place: socket.socket, *, finish_seconds: float) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes what runs, for at most `finish_seconds`, and returns."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=round(finish_seconds),
    )
    # uvicorn raises the signal again once it has finished; by then there is nothing left to end.
    before = {number: signal.signal(number, _already_finished) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(config).run(sockets=[place])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _already_finished(number: int, frame: FrameType | None) -> None:
    return None
