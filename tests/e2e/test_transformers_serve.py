"""A policy behind a real server on the CPU: `transformers serve` with the shipped tiny policy and a random Qwen2.5-VL.

The server keeps Qwen3-VL's reasoning apart (`reasoning_content`). Many requests at once, the server killed among them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import extra
import pytest
from real_server import asked_through_a_kill, served
from tiny_families import save_family

from segrl import datasets, policies
from segrl.answers import get
from segrl.policies import http_client as servers
from segrl.policies.openai_policy import chat_messages, data_url
from segrl.tiny import resolve_policy

PACKAGES = ("openai", "jiter", "distro", "sniffio")
MAX_NEW_TOKENS = 104
pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An empty cache, so that the server lists no model that this machine happens to have."""
    place = tmp_path_factory.mktemp("serve")
    (place / "cache").mkdir()
    return place


def start(place: Path, port: int) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(extra.folder("serve", *PACKAGES)), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    code = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (place / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, "serve", *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def test_many_requests_and_a_server_that_is_killed(place, monkeypatch):
    monkeypatch.setattr(servers, "_delay_s", lambda attempt, backoff_s: 1.0)
    here = policies.load("tiny", dtype="float32")
    examples = scene_examples()
    images = [example.image for example in examples]
    prompts = [get(here.answer_format).prompt(example.query) for example in examples]
    expected = here.generate(images, prompts, max_new_tokens=MAX_NEW_TOKENS)
    folder = resolve_policy("tiny")
    with served(partial(start, place), place / "server.log") as (port, running):
        name = f"openai:{folder}@http://127.0.0.1:{port}/v1"
        options = {"concurrency": 6, "retries": 1500, "timeout_s": 600.0, "family": "qwen3_vl"}
        settings = here.settings
        there = policies.load(
            name, answer_format=settings.answer_format, frame=settings.frame, input_wh=settings.input_wh, **options
        )
        raw = ask_plainly(there, images[0], prompts[0])
        assert raw["message"]["reasoning_content"]
        assert "<think>" not in (raw["message"]["content"] or "")
        found = asked_through_a_kill(
            lambda: there.generate(images * 2, prompts * 2, max_new_tokens=MAX_NEW_TOKENS),
            running,
            partial(start, place, port),
            after_s=1.0,
        )
    assert len(found) == 24
    for (alone,), (over_http,) in zip([*expected, *expected], found, strict=True):
        assert squeezed(over_http.text) == squeezed(alone.text)
        assert over_http.n_tokens == alone.n_tokens


def scene_examples() -> list:
    data = datasets.load("tiny", n=12, seed=4)
    return [data[i] for i in range(12)]


def ask_plainly(policy, image, prompt) -> dict:
    """The server's own reply to one request."""
    body = policy._body(MAX_NEW_TOKENS, 0.0, 0)
    messages = chat_messages(prompt, data_url(policy.shown(image)), policy.settings.system)
    return policy.server.post("chat/completions", {**body, "messages": messages}, lambda reply: reply["choices"][0])


def squeezed(text: str) -> str:
    """Without white space, which the server's parser strips, and without the tokens that end an answer."""
    return "".join(text.replace("<|im_end|>", "").split())


def test_a_qwen2_5_vl_of_random_weights(place):
    directory = save_family("qwen2_5_vl", place / "family")
    here = policies.load(str(directory), answer_format="qwen-json", dtype="float32")
    image = scene_examples()[0].image
    (expected,) = here.generate([image], ["the red circle"], max_new_tokens=12)
    with served(partial(start, place), place / "server.log") as (port, _):
        name = f"openai:{directory}@http://127.0.0.1:{port}/v1?family=qwen2_5_vl&max_pixels=12544&min_pixels=3136"
        there = policies.load(name, answer_format="qwen-json")
        found = there.generate([image] * 4, ["the red circle"] * 4, max_new_tokens=12)
    assert [len(row) for row in found] == [1] * 4
    assert {row[0].n_tokens for row in found} == {expected[0].n_tokens}
    assert {squeezed(row[0].text) for row in found} == {squeezed(expected[0].text)}
