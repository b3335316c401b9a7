"""Servers under attack, with fifty good clients beside: every good answer stays what it was, byte for byte.

The servers are processes of their own on loopback. The attackers are another address than the good clients, as an
address has a share of the places. `make attack` runs the long form.
"""

from __future__ import annotations

import asyncio
import itertools
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
import httpx
import pytest
from serving import SUPPORT, png, started, text_of

CLIENTS, ATTACKERS = 50, 6
MB = 2**20
SECONDS = 15.0
"""`--timeout` of the servers: on a busy machine a good answer may take seconds."""
STOP_SECONDS = 5.0
"""From SIGTERM to the end, of a server with work in hand that takes longer."""
PATIENCE = 5.0
"""Seconds that an attacker waits for an answer before it hangs up."""
MASKS = {
    "max_bytes": 2 * MB, "max_memory": 64 * MB, "max_pixels": 4_000_000, "max_mask_pixels": 16_000_000,
    "places": 100, "seconds": SECONDS,
}  # fmt: skip
BOUND = 64 * MB + 2 * 24 * 4_000_000 + 9 * 16_000_000 + 32 * MB + 100 * MB
"""Memory beside what a server takes at rest, as docs/security.md counts it: bodies and images of open requests, two
decoders, the masks of a batch, recent images; and a margin of 100 MB for the allocator."""


def memory(process: subprocess.Popen[str], name: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) * 1024


@dataclass
class Seen:
    """What an attack met. bad: answers that say too much, or name a fault of the server."""

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
        says_too_much = status >= 400 and (len(body) > 1_000 or b"Traceback" in body or b"site-packages" in body)
        if is_fault or says_too_much or b"root:" in body:
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


async def hold_slowly(url: httpx.URL, n: int, end: asyncio.Event) -> None:
    """Bodies that come a byte a second, from the attackers' address."""
    writers = []
    for _ in range(n):
        with suppress(OSError):
            _, writer = await asyncio.open_connection(url.host, url.port, local_addr=("127.0.0.2", 0))
            writer.write(attacks.http("/v1/segment", b"{", length=1_000))
            writers.append(writer)
    while not end.is_set():
        for writer in writers:
            if not writer.is_closing():  # the server may have had enough of it
                with suppress(OSError):
                    writer.write(b" ")
                    await writer.drain()
        await asyncio.sleep(1)
    for writer in writers:
        writer.close()


@dataclass(frozen=True)
class Good:
    """A request of a good client."""

    path: str
    body: dict


async def visit(client: httpx.AsyncClient, good: Good, truth: bytes | None, end: asyncio.Event, seen: Seen) -> bytes:
    """Asks until the end, and once more after it; a busy server is asked again when it says so."""
    while True:
        was_over = end.is_set()
        answer = await client.post(good.path, json=good.body)
        if answer.status_code in (429, 503):
            await asyncio.sleep(float(answer.headers["retry-after"]) / 10)
            continue
        assert answer.status_code == 200, answer.text
        assert truth in (None, answer.content)
        seen.n_good += 1
        if was_over or truth is None:
            return answer.content
        await asyncio.sleep(0.2)


async def under_attack(url: str, goods: list[Good], requests: list[bytes], rounds: int, slow: int) -> Seen:
    """The good clients' answers before, during and after the attack are compared."""
    seen, end, never = Seen(), asyncio.Event(), asyncio.Event()
    # a connection for each request: no race with the server that closes one which was idle for seconds
    alone = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=alone) as client:
        truths = await asyncio.gather(*(visit(client, good, None, never, seen) for good in goods))
        seen.n_good = 0
        visitors = [visit(client, good, truth, end, seen) for good, truth in zip(goods, truths, strict=True)]
        beside = [asyncio.ensure_future(one) for one in visitors]
        holding = asyncio.ensure_future(hold_slowly(httpx.URL(url), slow, end))
        queue = itertools.chain.from_iterable(itertools.repeat(requests, rounds))
        await asyncio.gather(*(attack(httpx.URL(url), queue, seen) for _ in range(ATTACKERS)))
        end.set()
        await asyncio.gather(*beside, holding)
    return seen


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
        asyncio.run(under_attack(url, goods, [], 1, 0))
        at_rest = memory(process, "VmRSS")
        seen = asyncio.run(under_attack(url, goods, attacks.on_masks(), rounds, slow=80))
        print("serve:", seen.statuses, seen.n_good, f"{(memory(process, 'VmHWM') - at_rest) / MB:.0f} MB")
        assert not seen.bad, seen.bad[0]
        assert memory(process, "VmHWM") - at_rest < BOUND
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
        asyncio.run(under_attack(url, goods, [], 1, 0))
        at_rest = memory(process, "VmRSS")
        seen = asyncio.run(under_attack(url, goods, attacks.on_reward(truth), rounds, slow=0))
        print("serve-reward:", seen.statuses, seen.n_good, f"{(memory(process, 'VmHWM') - at_rest) / MB:.0f} MB")
        assert not seen.bad, seen.bad[0]
        assert memory(process, "VmHWM") - at_rest < BOUND
        assert str(place) not in " ".join(seen.bad)
        stopped_within(process, SECONDS)


def attack_demo(rounds: int) -> None:
    options = ["--segmenter", "box", "--max-mb", "2", "--timeout", str(SECONDS), "--port", "0"]
    with started("-c", "from segrl.cli import main; main()", "demo", *options) as (process, url):
        page = httpx.get(f"{url}/config", timeout=60).content
        seen = Seen()

        async def all_of_them() -> None:
            queue = itertools.chain.from_iterable(itertools.repeat(attacks.on_demo(), rounds))
            await asyncio.gather(*(attack(httpx.URL(url), queue, seen) for _ in range(ATTACKERS)))

        at_rest = memory(process, "VmRSS")
        asyncio.run(all_of_them())
        print("demo:", seen.statuses, f"{(memory(process, 'VmHWM') - at_rest) / MB:.0f} MB")
        assert not seen.bad, seen.bad[0]
        assert 200 not in seen.statuses
        assert httpx.get(f"{url}/config", timeout=60).content == page
        assert memory(process, "VmHWM") - at_rest < BOUND
        stopped_within(process, SECONDS)


def test_serve_holds():
    attack_masks(1)


def test_serve_reward_holds(tmp_path):
    attack_reward(1, tmp_path)


def test_demo_holds():
    attack_demo(1)


@pytest.mark.long
def test_all_hold_for_longer(tmp_path):
    attack_masks(20)
    attack_reward(20, tmp_path)
    attack_demo(20)
