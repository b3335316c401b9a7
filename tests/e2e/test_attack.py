"""Servers under attack, with fifty good clients beside: every good answer stays what it was, byte for byte.

The servers are processes of their own on loopback. The attackers are another address than the good clients, as an
address has a share of the places. `make attack` runs the long form.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import attacks
import demo_client
import httpx
import pytest
from serving import SUPPORT, png, started, text_of

CLIENTS, ATTACKERS = 50, 6
VISITORS = 8
"""Good visitors of the demo page."""
ROUNDS = 20
"""Of the long form: every hostile request so many times."""
MB = 2**20
SECONDS = 120.0
"""`--timeout` of the servers: on a busy machine a good answer may take many seconds."""
SLOW_SECONDS = 3
"""How long a body may come slowly before the attackers give it up."""
STOP_SECONDS = 5.0
"""From SIGTERM to the end, of a server with work in hand that takes longer."""
PATIENCE = 3.0
"""Seconds that an attacker waits for an answer before it hangs up."""
PAUSE = 0.5
"""Seconds between two requests of a good client."""
MASKS = {
    "max_bytes": 2 * MB, "max_memory": 64 * MB, "max_pixels": 4_000_000, "max_mask_pixels": 16_000_000,
    "places": 100, "seconds": SECONDS,
}  # fmt: skip
BOUND = 64 * MB + 2 * 24 * 4_000_000 + 9 * 16_000_000 + 32 * MB + 100 * MB
"""Memory beside what a server takes at rest, as docs/security.md counts it: bodies and images of open requests, two
decoders, the masks of a batch, recent images; and a margin of 100 MB for the allocator."""
GROWTH = 64 * MB
"""What a server may hold more after the last round than after the first half of the rounds."""


def memory(process: subprocess.Popen[str], name: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) * 1024


@dataclass
class Seen:
    """What an attack met. bad: answers that say too much, or name a fault of the server, or take one of `never`."""

    never: frozenset[bytes] = frozenset()
    statuses: dict[int, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    n_good: int = 0

    def note(self, request: bytes, answer: bytes) -> None:
        """Looks at an answer to an attacker; none is fine, the connection was closed."""
        match = re.match(rb"HTTP/1\.1 (\d+)", answer)
        if match is None:
            return
        status, body = int(match.group(1)), answer.partition(b"\r\n\r\n")[2]
        self.statuses[status] = self.statuses.get(status, 0) + 1
        is_fault = status >= 500 and status != 503 and b'"query": "fail"' not in request
        names = (b"Traceback", b"site-packages", b"pytest-of")
        says_too_much = status >= 400 and (len(body) > 1_000 or any(name in body for name in names))
        is_taken = status == 200 and request in self.never
        if is_fault or says_too_much or is_taken or b"root:" in body:
            self.bad.append(f"{request[:300]!r} → {answer[:500]!r}")


async def attack(url: httpx.URL, requests: Iterator[bytes], seen: Seen) -> None:
    """Sends one request after the other, each on a connection of its own."""
    for request in requests:
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=("127.0.0.2", 0))
            with suppress(OSError):
                writer.write(request)
                await asyncio.wait_for(writer.drain(), 5)
                seen.note(request, await asyncio.wait_for(reader.read(20_000), PATIENCE))
            writer.close()


async def hold_slowly(url: httpx.URL, path: str, n: int, seen: Seen) -> None:
    """Bodies that come a byte a second, from the attackers' address, until they are given up; and one request more,
    for which that address has no place left."""
    slow = []
    for _ in range(n):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=("127.0.0.2", 0))
            writer.write(attacks.http(path, b"{", length=1_000))
            slow.append((reader, writer))
    for second in range(SLOW_SECONDS):
        await asyncio.sleep(1)
        if second == 1:
            await attack(url, iter([attacks.http(path, b"{}")]), seen)
        for reader, writer in slow:
            with suppress(OSError):
                if not reader.at_eof():  # the server may have had enough of it
                    writer.write(b" ")
                    await writer.drain()
    for _, writer in slow:
        writer.close()


@dataclass(frozen=True)
class Good:
    """A request of a good client; a GET without a body."""

    path: str
    body: dict | None = None


async def visit(client: httpx.AsyncClient, good: Good, truth: bytes | None, end: asyncio.Event, seen: Seen) -> bytes:
    """Asks until the end, and once more after it; a busy server is asked again when it says so."""
    while True:
        was_over = end.is_set()
        answer = await client.request("GET" if good.body is None else "POST", good.path, json=good.body)
        if answer.status_code in (429, 503):
            await asyncio.sleep(float(answer.headers["retry-after"]) / 10)
            continue
        assert answer.status_code == 200, answer.text
        assert truth in (None, answer.content)
        seen.n_good += 1
        if was_over or truth is None:
            return answer.content
        await asyncio.sleep(PAUSE)


@dataclass(frozen=True)
class Target:
    """A server that runs, and what its good clients ask. slow: the path that bodies come to slowly. never: requests
    that it must not take."""

    process: subprocess.Popen[str]
    url: str
    goods: list[Good]
    slow: str
    never: frozenset[bytes] = frozenset()

    async def answers(self, client: httpx.AsyncClient) -> list[bytes]:
        """What every good client is told without an attack."""
        never = asyncio.Event()
        return await asyncio.gather(*(visit(client, good, None, never, Seen()) for good in self.goods))

    async def rounds(self, requests: list[bytes], rounds: int, seen: Seen, held: list[int]) -> None:
        """Every request `rounds` times, and slow bodies at first; held: bytes of the server's memory after each."""
        url = httpx.URL(self.url)
        for _ in range(rounds):
            queue = iter(requests)
            await asyncio.gather(*(attack(url, queue, seen) for _ in range(ATTACKERS)))
            if not held:
                await hold_slowly(url, self.slow, 80, seen)
            held.append(memory(self.process, "VmRSS"))
            print(f"round {len(held)}: {held[-1] / MB:.0f} MB, {seen.n_good} good answers", flush=True)
            assert not seen.bad, seen.bad[0]

    async def attacked(self, requests: list[bytes], rounds: int) -> tuple[Seen, list[int]]:
        """The good clients' answers before, during and after the attack are compared."""
        seen, end, held = Seen(self.never), asyncio.Event(), []
        # a connection for each request: no race with the server that closes one which was idle for seconds
        alone = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=2 * SECONDS, limits=alone) as client:
            truths = await self.answers(client)
            asking = [visit(client, good, truth, end, seen) for good, truth in zip(self.goods, truths, strict=True)]
            async with asyncio.TaskGroup() as group:
                for one in asking:
                    group.create_task(one)
                await self.rounds(requests, rounds, seen, held)
                end.set()
        return seen, held

    def holds(self, name: str, requests: list[bytes], rounds: int) -> None:
        """Attacks it; asserts that nothing of it is told, and that its memory stays within the bound and flat."""
        asyncio.run(self.attacked([], 0))
        at_rest, began = memory(self.process, "VmRSS"), time.monotonic()
        seen, held = asyncio.run(self.attacked(requests, rounds))
        most = memory(self.process, "VmHWM") - at_rest
        told = [f"{(one - at_rest) / MB:.0f}" for one in held]
        print(f"{name}: {time.monotonic() - began:.0f} s, {seen.statuses}, {seen.n_good} good answers")
        print(
            f"{name}: memory beside {at_rest / MB:.0f} MB at rest: {most / MB:.0f} MB at most; rounds: {' '.join(told)}"
        )
        assert seen.n_good > len(self.goods)
        assert seen.statuses.keys() & {429, 503}
        assert most < BOUND
        assert held[-1] < max(held[: (rounds + 1) // 2]) + GROWTH


def stopped_within(process: subprocess.Popen[str], seconds: float) -> None:
    """Sends SIGTERM and waits; nothing of what was asked may stand in the log as a traceback but our own fault."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(seconds + 10)
    assert time.monotonic() - began < seconds + 3


def attack_masks(rounds: int) -> None:
    with started(str(SUPPORT / "attacked.py"), "serve", json.dumps(MASKS), str(STOP_SECONDS)) as (process, url):
        pictures = [text_of(png((40 + i, 30), (i, 2, 3))) for i in range(CLIENTS)]
        goods = [
            Good("/v1/segment", {"image": image, "query": [f"box 0 0 {i + 1} 9", "none"], "mask_format": "polygon"})
            if i % 2
            else Good("/v1/masks", {"image": image, "prompts": [{"box_xyxy": [0, 0, i + 1, 9]}]})
            for i, image in enumerate(pictures)
        ]
        Target(process, url, goods, "/v1/segment").holds("serve", attacks.on_masks(), rounds)
        body = {"image": pictures[0], "query": "wait"}
        with suppress(httpx.TimeoutException):
            httpx.post(f"{url}/v1/segment", json=body, timeout=0.5)
        stopped_within(process, STOP_SECONDS)


def attack_reward(rounds: int, place: Path) -> None:
    from small import save_data, save_policy
    from yaml import safe_dump

    dataset = {"name": "cod10k", "split": "train", "root": str(save_data(place / "data", n=3))}
    values = {"method": "grpo", "policy": str(save_policy(place / "policy")), "segmenter": "box", "dataset": dataset}
    (place / "recipe.yaml").write_text(safe_dump({**values, "rewards": {"iou": 1.0}}))
    options = ["--max-mb", "2", "--max-memory-mb", "64", "--timeout", str(SECONDS), "--places", "100", "--port", "0"]
    command = ["-c", "from segrl.cli import main; main()", "serve-reward", str(place / "recipe.yaml"), *options]
    truth = "0:COD10K-CAM-1-Aquatic-1-BatFish-0"
    goods = [
        Good("/score", {"rows": [{"text": f"<bbox>[0,0,{i + 1},50]</bbox>", "ground_truth": truth}]})
        for i in range(CLIENTS)
    ]
    with started(*command) as (process, url):
        Target(process, url, goods, "/score").holds("serve-reward", attacks.on_reward(truth), rounds)
        stopped_within(process, SECONDS)


def attack_demo(rounds: int) -> None:
    options = ["--segmenter", "box", "--max-mb", "2", "--timeout", str(SECONDS), "--port", "0"]
    goods = [Good(path) for path in ("/config", "/theme.css")] * (VISITORS // 2)
    with started("-c", "from segrl.cli import main; main()", "demo", *options) as (process, url):
        with httpx.Client(base_url=url, timeout=2 * SECONDS) as client:
            told = question(client)
            never = attacks.on_demo()
            target = Target(process, url, goods, demo_client.JOIN, frozenset(never))
            target.holds("demo", [*never, *attacks.taken_by_demo()], rounds)
            assert question(client) == told
        stopped_within(process, SECONDS)


def question(client: httpx.Client) -> list:
    """What a visitor is told about a picture, without the result's key."""
    output = demo_client.outcome(client, demo_client.named(demo_client.upload(client)))["output"]
    return [output["data"][0], output["is_generating"]]


def test_serve_holds():
    attack_masks(1)


def test_serve_reward_holds(tmp_path):
    attack_reward(1, tmp_path)


def test_demo_holds():
    attack_demo(1)


@pytest.mark.long
def test_serve_holds_for_long():
    attack_masks(ROUNDS)


@pytest.mark.long
def test_serve_reward_holds_for_long(tmp_path):
    attack_reward(ROUNDS, tmp_path)


@pytest.mark.long
def test_demo_holds_for_long():
    attack_demo(ROUNDS)
