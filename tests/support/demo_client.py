"""A visitor of the demo page, without a browser."""

from __future__ import annotations

import json
import uuid

import httpx
from serving import png

JOIN = "/gradio_api/queue/join"


def upload(client, data: bytes = b"") -> str:
    answer = client.post("/gradio_api/upload", files={"files": ("cat.png", data or png())})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def join(client, n_fn: int, data: list, **more) -> httpx.Response:
    body = {"data": data, "fn_index": n_fn, "session_hash": uuid.uuid4().hex, **more}
    return client.post(JOIN, json=body)


def asking(client) -> int:
    """The number of the page's function that takes a picture and a query."""
    return asked(client)[0]


def asked(client) -> tuple[int, list]:
    """Its number, and what its controls after picture and query hold at first."""
    config = client.get("/config").json()
    found = {one["id"]: one for one in config["components"]}
    for one in config["dependencies"]:
        kinds = [found[i]["type"] for i in one["inputs"]]
        if kinds[:3] == ["image", "textbox", "slider"]:
            return one["id"], [found[i]["props"].get("value") for i in one["inputs"][2:]]
    raise AssertionError("nothing asks")


def outcome(client, picture: dict, query: str = "none") -> dict:
    """The last event of asking about a picture."""
    session, (n_fn, controls) = uuid.uuid4().hex, asked(client)
    body = {"data": [picture, query, *controls], "fn_index": n_fn, "session_hash": session}
    assert client.post(JOIN, json=body).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            if '"process_completed"' in line:
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("no answer")


def named(path: object) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
