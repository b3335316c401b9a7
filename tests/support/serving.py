"""A server in a thread, over a policy whose answer is written in the query."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from segrl import segmenters
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.policies import Completion
from segrl.types import ORIGINAL, Frame
from segrl.web.app import bind, create_app
from segrl.web.limits import ServerSettings
from segrl.web.service import Service

SUPPORT = Path(__file__).parent
_BOX = re.compile(r"box (\d+) (\d+) (\d+) (\d+)")


class EchoPolicy:
    """`box x1 y1 x2 y2` is answered with that box, `none` with nothing, `fail` with an error of ours.

    `wait` is answered once `go` is set; anything else cannot be read. The reasoning is the image's
    size and first pixel, so that an answer shows which image it is about.
    """

    answer_format = "seg-r1"

    def __init__(self, seconds_per_batch: float = 0.0) -> None:
        self.seconds_per_batch, self.go, self.batches = seconds_per_batch, threading.Event(), []

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        return ORIGINAL

    def generate(self, images, prompts, **options):
        self.batches.append(len(prompts))
        time.sleep(self.seconds_per_batch)
        return [[Completion(self._answer(image, prompt))] for image, prompt in zip(images, prompts, strict=True)]

    def reply(self, chats, **options):
        """After its first answer it is done."""
        first = self.generate([chat.image for chat in chats], [chat.prompt for chat in chats])
        done = [Completion("<think>it fits</think> <answer>done</answer>")]
        return [done if chat.exchanges else one for chat, one in zip(chats, first, strict=True)]

    def _answer(self, image: Image.Image, prompt: str) -> str:
        if "fail" in prompt:
            raise RuntimeError("broken in /srv/secret/weights.safetensors")
        if "wait" in prompt:
            assert self.go.wait(30)
        seen = f"<think>{seen_in(image)}</think>"
        box = _BOX.search(prompt)
        if box:
            return f"{seen} <bbox>[{','.join(box.groups())}]</bbox>"
        return f"{seen} <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>" if "none" in prompt else "nonsense"


def seen_in(image: Image.Image) -> str:
    """What the policy's reasoning says of an image."""
    return f"{image.width}x{image.height} {image.getpixel((0, 0))}"


def png(size_wh: tuple[int, int] = (40, 30), colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size_wh, colour).save(file, "PNG")
    return file.getvalue()


def text_of(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def box_mask(box: tuple[int, int, int, int], size_wh: tuple[int, int]) -> np.ndarray:
    """What the box segmenter makes of a box."""
    mask = np.zeros(size_wh[::-1], dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@dataclass
class Running:
    """A server that runs. `url` has no slash at its end."""

    url: str
    port: int
    app: FastAPI
    policy: EchoPolicy
    server: uvicorn.Server

    @property
    def service(self) -> Service:
        return self.app.state.service


@contextmanager
def listening(app: FastAPI, patience: int = 20) -> Iterator[tuple[int, uvicorn.Server]]:
    """An application on a port of loopback; stopped, with what it still does finished, at the end."""
    with bind("127.0.0.1", 0) as place:
        settings = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=patience)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([place],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield place.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def running(
    settings: ServerSettings | None = None, policy: EchoPolicy | None = None, pipeline: Pipeline | None = None
) -> Iterator[Running]:
    """The server of masks, `listening`."""
    policy = policy or EchoPolicy()
    app = create_app(pipeline or Pipeline(policy, make_text_to_masks(policy, segmenters.load("box"))), settings)
    with listening(app) as (port, server):
        try:
            yield Running(f"http://127.0.0.1:{port}", port, app, policy, server)
        finally:
            policy.go.set()


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address; killed if it still runs at the end. What it says goes to a file: a pipe that
    nobody reads stops a process that says more than fits."""
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with tempfile.TemporaryFile("a+", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        )
        with process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                found = re.search(r"http://[\d.]+:\d+", line)
                assert found, f"{line}{last_lines(said)}"
                yield process, found.group()
            except Exception as error:
                error.add_note(f"the process said at last:\n{last_lines(said)}")
                raise
            finally:
                process.kill()


def last_lines(said: IO[str]) -> str:
    """At most 3,000 characters of the end of a file that is still being written."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - 3_000))
    return said.read()
