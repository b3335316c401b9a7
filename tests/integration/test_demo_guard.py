"""What a visitor of the demo page may name: the page's own routes, and files that were uploaded there."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import torch
from demo_client import asking, join, named, outcome, upload
from PIL import Image
from scripted import ScriptedPolicy
from serving import SUPPORT, png, started

from segrl.web.demo.guard import STREAM, UNHEARD
from segrl.web.limits import Limits

LIMITS = Limits(max_bytes=200_000, max_pixels=100_000, max_prompts=3)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    limits = {name: getattr(LIMITS, name) for name in ("max_bytes", "max_pixels", "max_prompts")}
    with started(str(SUPPORT / "attacked.py"), "demo", json.dumps(limits)) as (_, address):
        yield address


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as one:
        yield one


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    """A picture that only the server's owner may see."""
    path = tmp_path_factory.mktemp("private") / "secret.png"
    path.write_bytes(png((60, 60), (9, 8, 7)))
    path.chmod(0o600)
    return path


def test_an_upload_can_be_asked_about(client):
    assert outcome(client, named(upload(client)))["success"]


def test_no_other_file_can_be_named(client, secret, tmp_path):
    inside = Path(upload(client)).parent
    link = inside / "link.png"
    link.symlink_to(secret)
    fifo = inside / "fifo.png"
    os.mkfifo(fifo)
    paths = [str(secret), str(link), str(fifo), "/dev/zero", "/dev/stdin", "/proc/self/environ", "/etc/passwd"]
    paths += [f"{inside}/../../../..{secret}", str(inside), f"{secret}\0.png", "http://127.0.0.1:9/a.png", ["x"], 7, ""]
    for path in paths:
        for data in ([named(path), "none"], [[{"deep": [named(path)]}], "none"], [{"path": path}, "none"]):
            answer = join(client, asking(client), data)
            assert answer.status_code == 422, path
            assert answer.json()["detail"] == "picture: not a file that was uploaded here"
        assert client.get(f"/gradio_api/file={quote(str(path))}").status_code in (404, 422), path
    assert client.get("/").status_code == 200


def test_an_address_is_never_fetched_and_a_data_address_never_decoded(client):
    for picture in ({"url": "http://127.0.0.1:9/a.png"}, {"url": "data:image/png;base64,AAAA"}):
        assert join(client, asking(client), [picture, "none"]).status_code == 422
    both = {"path": upload(client), "url": "data:image/png;base64,AAAA"}
    assert join(client, asking(client), [both, "none"]).status_code == 422


def test_gradio_and_the_page_refuse_it_too(client, secret):
    """The three checks stand alone: what comes past the guard ends in one of the others."""
    import gradio as gr
    from gradio import processing_utils
    from gradio.context import LocalContext

    from segrl.web.demo.app import upload_folder
    from segrl.web.demo.edits import Edits
    from segrl.web.demo.page import Kept
    from segrl.web.demo.results import ResultStore
    from segrl.web.images import RecentImages

    store = ResultStore()
    kept = Kept(store, RecentImages(10**6), upload_folder(), LIMITS, Edits({}, store, LIMITS))
    for path in (str(secret), "/dev/zero", "/etc/passwd"):
        with pytest.raises(gr.Error, match="not a file that was uploaded"):
            kept.opened(path, "none")
    launched = SimpleNamespace(has_launched=True, allowed_paths=[], blocked_paths=[])
    token = LocalContext.blocks.set(launched)
    try:
        with pytest.raises(ValueError, match="not uploaded by a user"):
            processing_utils._check_allowed(str(secret), True)
    finally:
        LocalContext.blocks.reset(token)


def test_a_preview_is_of_what_was_drawn_and_bounded():
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from segrl import segmenters
    from segrl.loading import make_text_to_masks
    from segrl.pipeline import Pipeline
    from segrl.result import Result
    from segrl.types import Answer, Status
    from segrl.web.demo.edits import MAX_CHARACTERS, Edits
    from segrl.web.demo.results import ResultStore

    class Whole:
        """Masks of ones, for pictures about which nothing was asked."""

        def encode(self, images):
            return segmenters.load("box").encode(images)

        def decode(self, embeddings, prompts):
            boxes = segmenters.load("box").decode(embeddings, prompts)
            return [torch.ones_like(masks) for masks in boxes]

    policy = ScriptedPolicy({}, default="")
    store, image = ResultStore(), Image.new("RGB", (20, 10))
    empty = np.zeros((0, 10, 20), dtype=bool)
    asked, unasked = (store.put(Result(image, query, "", Answer(Status.NO_TARGET), empty)) for query in ("it", ""))
    pipeline = Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))
    app = FastAPI()
    app.include_router(Edits({"a/b": pipeline}, store, LIMITS, Whole()).routes())
    client = TestClient(app)

    def preview(key: str, objects: object, model: str = "a/b") -> httpx.Response:
        return client.get(f"/files/{key}/preview.png", params={"model": model, "objects": json.dumps(objects)})

    box = [{"box_xyxy": [2, 3, 8, 9]}]
    for key, pixels in ((asked, 36), (unasked, 200)):
        layer = np.asarray(Image.open(io.BytesIO(preview(key, box).content)))
        assert (layer[..., 3] > 0).sum() == pixels
    assert len(store._kept) == 2
    assert preview(asked, box, "other").status_code == 404
    for key, objects in (("gone", box), (asked, [{"box_xyxy": [2]}]), (asked, box * 4), (asked, "x" * MAX_CHARACTERS)):
        assert preview(key, objects).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/run/predict", "/gradio_api/call/x", "/gradio_api/component_server", "/gradio_api/stream/x", "/x"],
)
def test_routes_that_the_page_does_not_use_are_not_there(client, path):
    answer = client.post(path, json={"data": []})
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert client.get(path).status_code == 404
    assert client.get("/gradio_api/proxy=http://127.0.0.1:9/").status_code == 404


def test_events_are_bounded(client):
    n_fn = asking(client)
    assert join(client, n_fn, [[]] * 30_000).json()["error"] == "too_many_items"
    headers = {"content-type": "application/json"}
    assert join(client, 999, []).json()["error"] == "invalid_request"
    assert join(client, n_fn, [], session_hash=None).json()["error"] == "invalid_request"
    bodies = [(b"[" * 90, "too_deep"), (b"{", "not_json"), (b" " * 1_000_001, "body_too_large")]
    for body, error in [
        *bodies,
        (b"[1e999]", "not_json"),
        (b'{"data": [NaN]}', "not_json"),
        (b"[]", "invalid_request"),
        (b'{"data": ["\\ud800"]}', "invalid_request"),
    ]:
        answer = client.post("/gradio_api/queue/join", content=body, headers=headers)
        assert answer.json()["error"] == error


def test_events_that_nobody_listens_to_are_bounded(client):
    """Gradio keeps their answers for whoever may come; once somebody listens, more may be sent."""
    session, n_fn = "never-heard", asking(client)
    statuses = [join(client, n_fn, [None, "none"], session_hash=session).status_code for _ in range(UNHEARD + 1)]
    assert statuses[-1] == 429
    assert set(statuses[:-1]) == {200}
    with client.stream("GET", STREAM, params={"session_hash": session}) as events:
        assert next(events.iter_lines())
        assert join(client, n_fn, [None, "none"], session_hash=session).status_code == 200
    assert join(client, n_fn, [None, "none"], session_hash="another").status_code == 200


def test_pictures_are_bounded(client):
    assert client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 400_000)}).status_code == 413
    many = [("files", (f"{i}.png", b"x" * 50_000)) for i in range(8)]
    assert client.post("/gradio_api/upload", files=many).status_code == 413
    file = io.BytesIO()
    Image.new("L", (2_000, 2_000)).save(file, "PNG")
    told = outcome(client, named(upload(client, file.getvalue())))
    assert not told["success"]
    assert "pixels" in told["output"]["error"]


def test_the_disk_is_bounded(client):
    statuses = []
    for i in range(10):
        noise = os.urandom(150_000)
        statuses.append(client.post("/gradio_api/upload", files={"files": (f"{i}.png", noise)}).status_code)
    assert 200 in statuses
    assert statuses[-1] == 503
