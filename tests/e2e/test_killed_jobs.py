"""`segrl segment` and `segrl data reason`, killed at random moments: the end equals an undisturbed run to the byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import MODEL, Reply, serving, text
from PIL import Image

from segrl import datasets, exports
from segrl.datasets.gold import write_prompts

SUPPORT = Path(__file__).parents[1] / "support"
KILLS = [3, pytest.param(20, marks=pytest.mark.long)]
PAUSES_S = (0.0, 2.5)
"""Between the loading of the model and the kill."""


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def run(command: list[str], kill_after_s: float | None = None) -> int:
    """The exit status; -9 where it was killed, so long after its first line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        if kill_after_s is not None:
            process.stdout.readline()
            time.sleep(kill_after_s)
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), said.decode()
    return process.returncode


@pytest.mark.parametrize("options", [[], ["--turns", "4", "--segmenter", "grabcut"]], ids=["one answer", "turns"])
@pytest.mark.parametrize("kills", KILLS)
def test_segment(kills: int, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    command = [sys.executable, str(SUPPORT / "killed_segment.py"), "segment", str(tmp_path / "photos")]
    command += ["-q", "box", "-q", "ghost", "--format", ",".join(exports.names()), "--batch-size", "1"]
    command += [*options, "--out"]
    whole, out, dice = tmp_path / "whole", tmp_path / "out", random.Random(kills)
    assert run([*command, str(whole)]) == 0
    struck = sum(run([*command, str(out)], dice.uniform(*PAUSES_S)) != 0 for _ in range(kills))
    assert run([*command, str(out)]) == 0
    assert struck >= kills / 4
    assert files(out) == files(whole)


ASKED = "<think>The request asks for the one shape here, which stands out from the plain ground around it.</think>"


def answer(number: int, body: dict[str, Any]) -> Reply:
    """The gold answer that a request shows, after a while; of every third line no answer."""
    time.sleep(0.05)
    gold = str(body["messages"][-1]["content"][1]["text"]).rpartition("</think>")[2]
    return text(f"{ASKED}{gold}" if sum(gold.encode()) % 3 else "I cannot say.")


@pytest.mark.parametrize("kills", KILLS)
def test_data_reason(kills: int, tmp_path: Path) -> None:
    write_prompts(datasets.load("tiny", n=60, seed=0), tmp_path / "made")
    dice = random.Random(kills)
    with serving(answer) as fake:
        policy = f"openai:{MODEL}@{fake.url}?retries=0&concurrency=2"
        command = [sys.executable, "-c", f"print('begun', flush=True); {MAIN}", "data", "reason"]
        command += [str(tmp_path / "made"), "--policy", policy, "--out"]
        assert run([*command, str(tmp_path / "whole")]) == 0
        pauses = [dice.uniform(0.5, 6.0) for _ in range(kills)]
        struck = sum(run([*command, str(tmp_path / "out")], pause) != 0 for pause in pauses)
        assert run([*command, str(tmp_path / "out")]) == 0
    assert struck >= kills / 4
    assert files(tmp_path / "out") == files(tmp_path / "whole")


MAIN = "from segrl.cli import main; main()"
