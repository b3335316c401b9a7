"""Many clients, impatient clients, and clients that send anything."""

import asyncio
import io
import json
import os
import random
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from serving import EchoPolicy, eventually, png, running, text_of

import segrl
from segrl.masks import to_rle
from segrl.tiny.scenes import TinyScenes
from segrl.web.limits import Limits, ServerSettings

JSON = {"content-type": "application/json"}
CLIENTS, EACH = 64, 4


async def ask_as(client, number, turn):
    """One client's request of a turn, which no other makes; checks that the answer is its own."""
    size, x2 = (50 + number, 40 + turn), 1 + number % 40
    data = png(size, (number, turn, 7))
    queries = [f"box 0 0 {x2} 5", f"box 0 0 {x2} 9"]
    answer = await client.post("/v1/segment", files={"image": data}, data={"query": queries})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["width"], body["height"]) == size
    assert [result["masks"][0]["area"] for result in body["results"]] == [5 * x2, 9 * x2]
    assert {result["reasoning"] for result in body["results"]} == {f"{size[0]}x{size[1]} ({number}, {turn}, 7)"}
    return len(queries)


def visited_by_many(url, ask, each):
    """Sends CLIENTS clients at once, `each` requests one after the other; returns a report.

    ask: (client, number, turn) → how many answers it checked.
    """
    latencies, checked = [], []

    async def visit(number):
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            for turn in range(each):
                began = time.monotonic()
                checked.append(await ask(client, number, turn))
                latencies.append(time.monotonic() - began)

    async def all_of_them():
        await asyncio.gather(*(visit(number) for number in range(CLIENTS)))

    began = time.monotonic()
    asyncio.run(all_of_them())
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    return {
        "clients": CLIENTS,
        "requests": len(latencies),
        "answers": sum(checked),
        "answers_per_second": sum(checked) / (time.monotonic() - began),
        "seconds_p50": float(p50),
        "seconds_p95": float(p95),
        "seconds_p99": float(p99),
    }


def test_64_clients_lose_and_swap_nothing():
    policy = EchoPolicy(seconds_per_batch=0.002)
    with running(
        ServerSettings(limits=Limits(places=CLIENTS, places_per_client=CLIENTS), batch_size=16), policy
    ) as server:
        report = visited_by_many(server.url, ask_as, EACH)
        print(report)
        assert report["answers"] == sum(policy.batches) == 2 * CLIENTS * EACH
        assert len(policy.batches) < CLIENTS * EACH
        eventually(lambda: server.service.segment_places.taken == 0)


@pytest.mark.long
def test_64_clients_of_the_tiny_policy():
    """What each client gets is what the policy says of its own picture when nobody else asks."""
    model = segrl.load("tiny")
    scenes = list(TinyScenes(CLIENTS, 9_503))
    alone = [model.segment(scene.image, scene.query) for scene in scenes]

    async def ask(client, number, turn):
        scene, file = scenes[number], io.BytesIO()
        scene.image.save(file, "PNG")
        answer = await client.post("/v1/segment", files={"image": file.getvalue()}, data={"query": scene.query})
        (result,) = answer.json()["results"]
        assert (result["query"], result["text"]) == (scene.query, alone[number].text)
        assert [mask["rle"] for mask in result["masks"]] == [to_rle(mask) for mask in alone[number].masks]
        return 1

    with running(
        ServerSettings(batch_size=16, limits=Limits(seconds=600, places_per_client=CLIENTS)), pipeline=model
    ) as server:
        report = visited_by_many(server.url, ask, 3)
    assert report["answers"] == 3 * CLIENTS
    print("64 clients of the tiny policy:", report)


def test_a_full_server_says_when_to_come_again():
    with running(ServerSettings(limits=Limits(places=1))) as server:
        body = {"image": text_of(png()), "query": "wait"}
        first = threading.Thread(
            target=httpx.post, args=(f"{server.url}/v1/segment",), kwargs={"json": body, "timeout": 60}
        )
        first.start()
        eventually(lambda: server.service.segment_places.taken == 1)
        refused = httpx.post(f"{server.url}/v1/segment", json=body)
        assert (refused.status_code, refused.json()["error"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        prompts = {"image": text_of(png()), "prompts": [{"box_xyxy": [0, 0, 5, 5]}]}
        assert httpx.post(f"{server.url}/v1/masks", json=prompts).status_code == 200
        server.policy.go.set()
        first.join(30)
        assert httpx.post(f"{server.url}/v1/segment", json=body).status_code == 200


def test_one_client_leaves_places_to_the_others():
    limits = Limits(places=4, places_per_client=3)
    with running(ServerSettings(limits=limits)) as server:
        head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        slow = [socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.2", 0)) for _ in range(3)]
        for connection in slow:
            connection.sendall(head)
        eventually(lambda: server.service.segment_places.taken == 3)
        body = {"image": text_of(png()), "query": "none"}
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=transport) as greedy:
            refused = greedy.post(f"{server.url}/v1/segment", json=body)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.post(f"{server.url}/v1/segment", json=body).status_code == 200
        for connection in slow:
            connection.close()
        eventually(lambda: server.service.segment_places.taken == 0)


def test_open_requests_share_a_stated_memory():
    with running(ServerSettings(limits=Limits(max_memory=30_000))) as server:
        whole = {"image": text_of(png((200, 200))), "query": "none"}  # 120,000 bytes of pixels
        refused = httpx.post(f"{server.url}/v1/segment", json=whole)
        assert (refused.status_code, refused.json()["error"]) == (413, "too_large")
        with server.service.memory.holding() as take:
            take(29_900)
            busy = httpx.post(f"{server.url}/v1/segment", json={**whole, "image": text_of(png())})
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert httpx.post(f"{server.url}/v1/segment", json={**whole, "image": text_of(png())}).status_code == 200
        assert server.service.memory.taken == 0


def request_bytes(body):
    head = ("POST /v1/segment HTTP/1.1", "Host: a", "Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def test_clients_that_go_away_leave_nothing_behind():
    rng = random.Random(0)
    with running(ServerSettings(limits=Limits(places=200, seconds=60), batch_size=4)) as server:
        whole = request_bytes(json.dumps({"image": text_of(png()), "query": "wait"}).encode())
        files = len(os.listdir("/proc/self/fd"))
        for i in range(60):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                sent = len(whole) if i % 2 else rng.randrange(1, len(whole))
                connection.sendall(whole[:sent])
                if i == 1:
                    eventually(lambda: len(server.service.recent) == 1)
        service = server.service
        eventually(lambda: service.segment_places.taken == 0)
        eventually(lambda: service._queries.n_waiting == 0)
        server.policy.go.set()
        eventually(lambda: not server.server.server_state.connections)
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
        assert len(service.recent) == 1
        answer = httpx.post(
            f"{server.url}/v1/segment", json={"image": text_of(png()), "query": "box 0 0 5 5"}, timeout=30
        )
        assert answer.json()["results"][0]["masks"][0]["area"] == 25
        assert sum(server.policy.batches) <= 12  # those that waited with the first were never worked on


BROKEN_PROMPTS = [
    "null", "[]", "[{}]", "[[]]", '[{"box_xyxy":[1,2,3]}]', '[{"box_xyxy":[5,5,1,1]}]', '[{"box":1}]', "[" * 5000,
    '[{"points_xy":[[1]],"labels":[1]}]', '[{"points_xy":[[1,1]],"labels":[7]}]', '[{"points_xy":[[1,1]]}]',
    '[{"box_xyxy":[0,0,NaN,5]}]', '[{"box_xyxy":"0,0,5,5"}]', '[{"box_xyxy":[99,99,100,100]}]',
    '[{"box_xyxy":[0,0,1e999,5]}]',
]  # fmt: skip


def broken_json(rng):
    """(path, body) of JSON that holds no request."""
    image = text_of(png())
    good = {"image": image, "query": "box 0 0 5 5"}
    kind = rng.randrange(8)
    if kind == 0:
        text = json.dumps(good)
        return "/v1/segment", text[: rng.randrange(len(text))].encode()
    if kind == 1:
        return "/v1/segment", rng.randbytes(rng.randrange(200))
    if kind == 2:
        wrong = rng.choice(
            [None, 1, [], {}, True, "", "%", "é", image[: rng.randrange(40)], "x" * rng.randrange(1, 99)]
        )
        return "/v1/segment", json.dumps({**good, "image": wrong}).encode()
    if kind == 3:
        wrong = rng.choice([None, 1, [], {}, "", "  ", [""], [None], ["a"] * 99, [["a"]], "\ud800", "z" * 5000])
        return "/v1/segment", json.dumps({**good, "query": wrong}).encode()
    if kind == 4:
        return "/v1/segment", json.dumps({**good, rng.choice(["mask_format", "more", "queries"]): "jpg"}).encode()
    if kind == 5:
        data = bytearray(png())
        data[rng.randrange(8)] ^= 1 << rng.randrange(8)
        return "/v1/segment", json.dumps({**good, "image": text_of(bytes(data))}).encode()
    if kind == 6:
        return "/v1/masks", f'{{"image":"{image}","prompts":{rng.choice(BROKEN_PROMPTS)}}}'.encode()
    return rng.choice(["/v1/segment", "/v1/masks"]), rng.choice(
        [b"[" * 100_000, b'{"a":' * 50_000, b"null", b"{}", b"[]", b""]
    )


def broken_form(rng):
    """(path, body, boundary) of a form that holds no request."""
    parts = [
        b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png(),
        b'Content-Disposition: form-data; name="query"\r\n\r\nbox 0 0 5 5',
    ]
    kind = rng.randrange(5)
    if kind == 0:
        parts = parts[rng.randrange(2) :][:1]
    elif kind == 1:
        parts[0] = parts[0][: len(parts[0]) - rng.randrange(30, len(png()))]
    elif kind == 2:
        parts[rng.randrange(2)] = rng.randbytes(rng.randrange(80))
    elif kind == 3:
        parts.append(b'Content-Disposition: form-data; name="mask_format"\r\n\r\njpg')
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return "/v1/segment", body, rng.choice(["c", "", "b" * 80]) if kind == 4 else "b"


def send_broken(n, seed):
    """Sends `n` broken bodies; returns the status codes."""
    rng, codes = random.Random(seed), []
    with running() as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for i in range(n):
            if i % 3:
                path, body = broken_json(rng)
                headers = JSON
            else:
                path, body, boundary = broken_form(rng)
                headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
            answer = client.post(path, content=body, headers=headers)
            assert 400 <= answer.status_code < 500, (i, answer.status_code, path, headers, body[:300])
            assert set(answer.json()) == {"error", "detail"}
            codes.append(answer.status_code)
        assert server.policy.batches == []
        assert client.get("/healthz").status_code == 200
    return codes


def test_broken_bodies_are_the_clients_fault():
    assert {400, 422} <= set(send_broken(200, seed=0))


@pytest.mark.long
def test_ten_thousand_broken_bodies():
    assert len(send_broken(10_000, seed=1)) == 10_000
