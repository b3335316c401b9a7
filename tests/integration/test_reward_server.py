"""The reward's server: what it takes, what it refuses, and its own OpenAPI page tried on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
import yaml
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import listening
from small import save_data, save_policy

from segrl.integrations import RecipeReward, from_recipe
from segrl.web.limits import Limits, ServerSettings
from segrl.web.reward_server import make_app

load_all_checks()
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LIMITS = Limits(max_bytes=300_000, max_rows=50, max_items=500, max_text_chars=5_000)
TRUTH = "0:COD10K-CAM-1-Aquatic-1-BatFish-0"
GOLD = "<bbox>[0,0,56,56]</bbox>"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reward")


@pytest.fixture(scope="module")
def reward(place) -> RecipeReward:
    values = {
        "method": "grpo",
        "policy": str(save_policy(place / "policy")),
        "segmenter": "box",
        "dataset": {"name": "cod10k", "split": "train", "root": str(save_data(place / "data", n=3))},
        "rewards": {"iou": 1.0},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(values))
    return from_recipe(place / "recipe.yaml")


@pytest.fixture(scope="module")
def app(reward) -> FastAPI:
    return make_app([reward], name="test", settings=ServerSettings(limits=LIMITS))


@pytest.fixture(scope="module")
def client(app) -> Iterator[httpx.Client]:
    with listening(app) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as one:
        yield one


def ask(client, *rows) -> httpx.Response:
    return client.post("/score", json={"rows": list(rows)})


def row(text: str = GOLD, ground_truth: str = TRUTH) -> dict:
    return {"text": text, "ground_truth": ground_truth}


def test_rows_are_scored(client):
    (one,) = ask(client, row()).json()["rewards"]
    assert one["status"] == "ok"
    assert ask(client).json() == {"rewards": []}


LINE = {"image": "people/images/FudanPed0.jpg", "query": "it"}
HUGE = {"size": [30_000, 30_000], "counts": "0"}
DEEP = '{"image": ' + "[" * 60 + "]" * 60 + "}"


@pytest.mark.parametrize(
    ("rows", "status", "error"),
    [
        ([row("x" * 5_001)], 422, "invalid_request"),
        ([row()] * 51, 422, "too_many_rows"),
        ([7] * 100, 422, "invalid_request"),
        ([row(ground_truth=DEEP)], 422, "too_deep"),
        ([row(ground_truth="9" * 5_000 + ":a")], 422, "too_many_digits"),
        ([row(ground_truth=json.dumps(LINE | {"image": "/etc/hostname"}))], 422, "invalid_request"),
        ([row(ground_truth=json.dumps(LINE | {"image": "gone.jpg", "masks": []}))], 422, "invalid_request"),
        (
            [row(ground_truth=json.dumps(LINE | {"mask": {"size": [30_000, 30_000], "counts": "0"}}))],
            422,
            "invalid_request",
        ),
        ([row(ground_truth="\ud800")], 422, "invalid_request"),
        ([row("\ud800")], 422, "invalid_request"),
        ([{**row(), "more": 1}], 422, "invalid_request"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_no_place(client, place, rows, status, error):
    answer = client.post("/score", content=json.dumps({"rows": rows}).encode())
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "detail"}
    assert len(answer.content) < 600
    assert str(place) not in answer.text
    assert "\n" not in answer.json()["detail"]


def test_bodies_that_cannot_be_read(client):
    assert client.post("/score", content=b"{").status_code == 400
    assert client.post("/score", content=b"x" * 300_001).status_code == 413
    assert client.get("/score").status_code == 405


def test_the_token_guards_the_score(reward):
    app = make_app([reward], settings=ServerSettings(token="s3cret"))
    with listening(app) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert ask(client, row()).status_code == 401
        client.headers["Authorization"] = "Bearer s3cret"
        assert ask(client, row()).status_code == 200


def test_the_client_asks_a_busy_server_again(client, app, monkeypatch):
    from segrl.integrations import client as copied

    monkeypatch.setenv("SEGRL_REWARD", str(client.base_url).rstrip("/"))
    places = app.state.service.places
    monkeypatch.setattr(places, "taken", places.total)
    freed = threading.Timer(0.3, setattr, (places, "taken", 0))
    freed.start()
    (one,) = copied.score([row()])
    freed.join()
    assert one["status"] == "ok"


def page() -> dict:
    """The page of such a server; it needs no recipe."""
    return make_app([]).openapi()


schema = schemathesis.openapi.from_dict(page())


@schema.parametrize()
@FEW
def test_the_server_keeps_to_its_page(client, case):
    case.call_and_validate(base_url=str(client.base_url).rstrip("/"), checks=CHECKS, timeout=60)
