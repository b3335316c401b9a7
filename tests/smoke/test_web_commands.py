"""`segrl serve` and `segrl demo` as processes: they start, answer, and finish what runs when told to stop."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from segrl.tiny.scenes import TinyScenes

SCENE = TinyScenes(1, 9_501)[0]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address; killed if it still runs at the end."""
    command = [sys.executable, "-c", "from segrl.cli import main; main()", *arguments, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + process.stderr.read()
            yield process, found.group()
        finally:
            process.kill()


def ask(url: str, query: str = SCENE.query) -> httpx.Response:
    file = io.BytesIO()
    SCENE.image.save(file, "PNG")
    return httpx.post(f"{url}/v1/segment", files={"image": file.getvalue()}, data={"query": query}, timeout=120)


def test_serve_answers_and_finishes_what_runs_on_sigterm():
    with started("serve", "--policy", "tiny-scenes") as (process, url):
        assert httpx.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
        first = ask(url).json()["results"][0]
        assert first["query"] == SCENE.query
        assert first["text"]
        refused = ask(url, "the red <|image_pad|>")
        assert (refused.status_code, "control token" in refused.json()["detail"]) == (422, True)
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(ask(url)))
        asking.start()
        while 'segrl_places_taken{queue="segment"} 1' not in httpx.get(f"{url}/metrics", timeout=60).text:
            assert not answers, "it answered before it could be stopped"
        process.send_signal(signal.SIGTERM)
        asking.join(120)
        assert answers[0].json()["results"][0] == first
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_told_in_one_line():
    with started("serve", "--segmenter", "box") as (_, url):
        command = [sys.executable, "-c", "from segrl.cli import main; main()", "serve", "--port", url.rsplit(":", 1)[1]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("segrl: cannot listen on")


def test_demo_serves_its_page():
    with started("demo") as (process, url):
        page = httpx.get(url, timeout=120)
        assert page.status_code == 200
        assert "segrl" in page.text
        assert httpx.get(f"{url}/files/no/mask.png", timeout=60).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
