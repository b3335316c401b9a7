"""The HTTP API: what goes in, what comes out, and what is refused."""

import base64
import http.client
import io
import json
import socket
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from pycocotools import mask as coco
from serving import EchoPolicy, box_mask, eventually, png, running, seen_in, text_of

from segrl.web.limits import Limits, ServerSettings

BOX, SIZE = (3, 4, 20, 25), (40, 30)
QUERY = "box 3 4 20 25"
LIMITS = Limits(max_bytes=200_000, max_pixels=100_000, max_queries=4, max_prompts=3, places=8)


@pytest.fixture(scope="module")
def server():
    with running(ServerSettings(limits=LIMITS)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=150) as one:
        yield one


def ask(client, query=QUERY, **more):
    return client.post("/v1/segment", json={"image": text_of(png()), "query": query, **more})


def to_mask(body, mask_format):
    if mask_format == "rle":
        return coco.decode({"size": body["rle"]["size"], "counts": body["rle"]["counts"].encode()}).astype(bool)
    if mask_format == "polygon":
        return coco.decode(coco.merge(coco.frPyObjects(body["polygons"], *SIZE[::-1]))).astype(bool)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body["png"])))) == 255


@pytest.mark.parametrize("mask_format", ["rle", "polygon", "png"])
def test_a_query_gives_a_mask_in_each_format(client, mask_format):
    body = ask(client, mask_format=mask_format).json()
    assert (body["width"], body["height"]) == SIZE
    (result,) = body["results"]
    assert (result["query"], result["status"], result["detail"], result["repairs"]) == (QUERY, "ok", "", [])
    assert result["reasoning"] == seen_in(Image.open(io.BytesIO(png())))
    assert result["prompts"] == [{"box_xyxy": list(BOX), "points_xy": [], "labels": []}]
    (mask,) = result["masks"]
    assert mask["area"] == 17 * 21
    assert mask["box_xyxy"] == list(BOX)
    np.testing.assert_array_equal(to_mask(mask, mask_format), box_mask(BOX, SIZE))


def test_multipart_and_json_give_the_same(client):
    fields = {"query": [QUERY, "none"], "mask_format": "rle"}
    form = client.post("/v1/segment", files={"image": ("a.png", png(), "image/png")}, data=fields)
    assert form.status_code == 200
    assert form.json() == ask(client, [QUERY, "none"]).json()


def test_turns_come_with_what_stood_after_each(client):
    (result,) = ask(client, turns=3).json()["results"]
    assert [turn["move"] for turn in result["turns"]] == ["answer", "done"]
    assert [turn["masks"] for turn in result["turns"]] == [result["masks"]] * 2
    assert ask(client).json()["results"][0]["turns"] == []
    assert ask(client, turns=9).status_code == 422
    fields = {"query": [QUERY], "turns": "3"}
    form = client.post("/v1/segment", files={"image": ("a.png", png(), "image/png")}, data=fields)
    assert form.json()["results"] == [result]


def test_nothing_there_and_unreadable_are_told_apart(client):
    nothing, unread = ask(client, ["none", "what"]).json()["results"]
    assert (nothing["status"], nothing["masks"], nothing["detail"]) == ("no_target", [], "")
    assert (unread["status"], unread["masks"]) == ("no_answer", [])
    assert unread["detail"]
    assert unread["text"] == "nonsense"


def test_masks_follow_prompts_and_the_image_is_sent_once(client):
    image_id = ask(client).json()["image_id"]
    prompts = [{"box_xyxy": [0, 0, 10, 10]}, {"points_xy": [[30, 20]], "labels": [1]}]
    first = client.post("/v1/masks", json={"image_id": image_id, "prompts": prompts}).json()
    assert first["masks"][0]["area"] == 100
    assert to_mask(first["masks"][1], "rle")[20, 30]
    form = {"prompts": json.dumps(prompts)}
    again = client.post("/v1/masks", files={"image": ("a.png", png(), "image/png")}, data=form).json()
    assert again == first
    unknown = client.post("/v1/masks", json={"image_id": "0" * 32, "prompts": prompts})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_image")


REFUSED = [
    ({"prompts": []}, 422),
    ({"prompts": [{}]}, 422),
    ({"prompts": [{"box_xyxy": [9, 9, 3, 3]}]}, 422),
    ({"prompts": [{"box_xyxy": [100, 100, 120, 120]}]}, 422),
    ({"prompts": [{"points_xy": [[1, 1]], "labels": [2]}]}, 422),
    ({"prompts": [{"points_xy": [[1, 1]], "labels": []}]}, 422),
    ({"prompts": [{"box_xyxy": [0, 0, 5, 5]}] * 4}, 422),
    ({"prompts": [{"box_xyxy": [0, 0, 5, 5]}], "image_id": "both"}, 422),
    ({"prompts": [7] * 30_000}, 422),
    ({"prompts": [{"box_xyxy": [0, 0, 5, int("9" * 200)]}]}, 422),
    ({str(i): 0 for i in range(15_000)}, 422),
]


@pytest.mark.parametrize(("fields", "status"), REFUSED)
def test_prompts_that_make_no_sense(client, fields, status):
    answer = client.post("/v1/masks", json={"image": text_of(png()), **fields})
    assert answer.status_code == status
    assert "\n" not in answer.json()["detail"]


def bomb(width, height):
    """A PNG of a few bytes that claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "status", "error"),
    [
        (text_of(bomb(60_000, 60_000)), 413, "too_many_pixels"),
        (text_of(bomb(9_000, 9_000)), 413, "too_many_pixels"),
        (text_of(bomb(400, 1)), 422, "invalid_request"),
        (text_of(bomb(30, 30)), 422, "not_an_image"),
        (text_of(png()[:-30]), 422, "not_an_image"),
        (text_of(b"no picture"), 422, "not_an_image"),
        ("%%%", 422, "invalid_request"),
        ("A" * 300_000, 413, "body_too_large"),
        ("http://127.0.0.1:9/a.png", 422, "invalid_request"),
        ("file:///etc/passwd", 422, "invalid_request"),
    ],
)
def test_images_that_are_refused(client, image, status, error):
    answer = client.post("/v1/segment", json={"image": image, "query": QUERY})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "/" not in answer.json()["detail"].replace("image/", "")


def test_a_body_of_unknown_length_is_cut_off(server):
    """Twice the limit is read, then the server answers, though the sender has not said that it is done."""
    lines = ("POST /v1/segment HTTP/1.1", "Host: a", "Content-Type: application/json", "Transfer-Encoding: chunked")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        for _ in range(2 * LIMITS.max_bytes // 1000 + 1):
            connection.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.load(answer)["error"]) == (413, "body_too_large")
    eventually(lambda: server.service.segment_places.taken == 0)


@pytest.mark.parametrize(
    ("query", "error"),
    [(["none"] * 5, "too_many_queries"), ("n" * 1001, "invalid_request"), (" ", "invalid_request"), ([], None)],
)
def test_queries_that_are_refused(client, query, error):
    answer = ask(client, query)
    assert answer.status_code == 422
    assert answer.json()["error"] == (error or "invalid_request")


def test_masks_that_would_fill_the_memory():
    limits = Limits(max_mask_pixels=3 * SIZE[0] * SIZE[1] - 1)
    with running(ServerSettings(limits=limits)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        prompts = [{"box_xyxy": [0, 0, 10, 10]}] * 3
        many = client.post("/v1/masks", json={"image": text_of(png()), "prompts": prompts})
        assert (many.status_code, many.json()["error"]) == (413, "too_many_pixels")
        assert client.post("/v1/masks", json={"image": text_of(png()), "prompts": prompts[:2]}).status_code == 200
        bounded = server.service.pipeline.text_to_masks.read(
            ["<bbox>[[0,0,9,9],[0,0,9,9],[0,0,9,9]]</bbox>"], [Image.new("RGB", SIZE)]
        )
        assert (bounded[0].answer.status.value, len(bounded[0].masks)) == ("bad_values", 0)


def test_other_bodies(client):
    headers = {"content-type": "application/json"}
    half = b'{"image": "AA", "query": "\\ud800"}'
    assert client.post("/v1/segment", content=half, headers=headers).status_code == 422
    deep = client.post("/v1/segment", content=b"[" * 90_000, headers=headers)
    assert (deep.status_code, deep.json()["error"]) == (422, "too_many_items")
    deep = client.post("/v1/segment", content=b"[" * 90, headers=headers)
    assert (deep.status_code, deep.json()["error"]) == (422, "too_deep")
    assert client.post("/v1/segment", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/v1/segment", content=b"a", headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/v1/segment").status_code == 405
    assert client.get("/nowhere").json()["error"] == "not_found"
    assert ask(client, surprise=1).status_code == 422


def test_a_fault_of_ours_reaches_one_client_and_says_nothing_of_the_server(server, client):
    answer = ask(client, ["fail", QUERY])
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert ask(client).status_code == 200
    eventually(lambda: server.service.segment_places.taken == 0)


def test_health_metrics_and_pages(client):
    assert client.get("/healthz").json()["status"] == "ok"
    ask(client)
    metrics = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert {"segrl_requests", "segrl_request_seconds", "segrl_answers", "segrl_batch_size", "segrl_waiting"} <= set(
        metrics
    )
    counted = [s for s in metrics["segrl_requests"].samples if s.labels == {"path": "/v1/segment", "code": "200"}]
    assert counted[0].value >= 1
    page = client.get("/openapi.json").json()
    assert {"/v1/segment", "/v1/masks", "/healthz", "/metrics"} <= set(page["paths"])
    assert {"SegmentRequest", "MasksRequest", "Prompt"} <= set(page["components"]["schemas"])
    assert client.get("/docs").status_code == 200


def test_the_token_guards_everything_but_health():
    with running(ServerSettings(token="s3cret")) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200
        basic = "Basic " + base64.b64encode(b"anyone:s3cret").decode()
        for header in ("", "Bearer wrong", "Bearer s3cret2", "Bearer é", "Basic !", "s3cret", "Basic " + basic):
            refused = client.get("/metrics", headers={"Authorization": header.encode()})
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert ask(client).status_code == 401
        for header in ("Bearer s3cret", "bearer s3cret", basic):
            client.headers["Authorization"] = header
            assert client.get("/metrics").status_code == 200
            assert ask(client).status_code == 200


def test_a_page_of_an_allowed_origin_may_ask_with_json_and_a_token():
    page, other = "https://page.example", "https://other.example"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    settings = ServerSettings(token="s3cret", allow_origins=(page,))
    with running(settings) as server, httpx.Client(base_url=server.url, timeout=150) as client:
        allowed = client.options("/v1/segment", headers={"Origin": page, **asks})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page)
        assert client.options("/v1/segment", headers={"Origin": other, **asks}).status_code == 400
        client.headers.update({"Origin": page, "Authorization": "Bearer s3cret"})
        assert ask(client).headers["access-control-allow-origin"] == page


def test_requests_that_take_too_long_are_told_so():
    with running(ServerSettings(limits=Limits(seconds=0.2))) as server, httpx.Client(base_url=server.url) as client:
        answer = ask(client, "wait")
        assert (answer.status_code, answer.json()["error"]) == (408, "too_slow")
        eventually(lambda: server.service.segment_places.taken == 0)


def test_batches_gather_while_one_is_worked_on():
    policy = EchoPolicy(seconds_per_batch=0.1)
    with running(ServerSettings(batch_size=3), policy) as server, httpx.Client(base_url=server.url) as client:
        body = ask(client, [f"box 0 0 {i + 1} 5" for i in range(8)]).json()
        assert [result["masks"][0]["area"] for result in body["results"]] == [5 * (i + 1) for i in range(8)]
        assert policy.batches == [3, 3, 2]
