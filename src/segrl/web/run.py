"""A server from start to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
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
    """Serves until SIGTERM or Ctrl-C, then finishes what runs, and returns.

    What is not finished `finish_seconds` after the signal is given up: the process ends with a line and
    status 1, whatever its threads do.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, int(0.9 * finish_seconds)),  # then requests are ended, and say so
    )
    # uvicorn raises the signal again once it has finished; by then there is nothing left to end.
    before = {number: signal.signal(number, _already_finished) for number in (signal.SIGTERM, signal.SIGINT)}
    server = _Server(config, finish_seconds)
    try:
        server.run(sockets=[place])
    finally:
        server.last_call.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """uvicorn's server with an end: its own waits for threads that may never return."""

    def __init__(self, config: uvicorn.Config, finish_seconds: float) -> None:
        super().__init__(config)
        self.last_call = threading.Timer(finish_seconds, _give_up, (finish_seconds,))
        self.last_call.daemon = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.last_call.start()
        super().handle_exit(sig, frame)


def _give_up(seconds: float) -> None:
    sys.stderr.write(f"segrl: stopped; what was not finished after {seconds:g} seconds was given up\n")
    sys.stderr.flush()
    os._exit(1)


def _already_finished(number: int, frame: FrameType | None) -> None:
    return None
