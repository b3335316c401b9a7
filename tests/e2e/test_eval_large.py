"""An evaluation as large as a benchmark, and one killed again and again: memory, speed, the same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eval_samples import write_examples

SEGRL = [sys.executable, "-c", "from segrl.cli import main; main()"]
TESTS = Path(__file__).parents[1] / "unit"

MEASURED = """
import json, os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from eval_samples import write_examples
from segrl.evaluation import Share, run

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

root, held = Path({root!r}), {{}}
settings = write_examples(root, {n})
def watch(records, finished, total):
    if finished in ({n} // 5, {n}):
        held[finished] = resident_mib()
run(settings, root / "run", share=Share(), on_window=watch)
speed = json.loads((root / "run" / "summary.json").read_text())["speed"]
print(json.dumps({{"held": list(held.values()), "end": resident_mib(), "speed": speed}}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("n", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_memory_is_flat_and_the_speed_is_told(tmp_path, n):
    code = MEASURED.format(tests=str(TESTS), root=str(tmp_path), n=n)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    first, last = found["held"]
    assert last - first < 8, "memory grew while examples were answered"
    assert found["end"] - first < 48, "memory grew while the result was written"
    assert found["speed"]["samples"] == n
    assert found["speed"]["samples_per_second"] > 20
    print(f"{n} samples: {found}")


@pytest.mark.long
def test_the_command_killed_twenty_times_ends_as_if_undisturbed(tmp_path):
    settings = write_examples(tmp_path, 2000)
    command = [*SEGRL, "eval", "--dataset", "jsonl", "--root", str(tmp_path), "--policy", "scripted"]
    command += ["--texts", str(settings.texts), "--segmenter", "box", "--processes", "2", "--out"]
    draw, done = random.Random(0), 0
    for _ in range(200):
        with subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL) as process:
            if done < 20:
                _wait_for_growth(tmp_path / "killed" / "journal", process)
                time.sleep(draw.uniform(0, 0.4))
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=600)
        done += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert done >= 5
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=600, stdout=subprocess.DEVNULL)
    killed, whole = ((tmp_path / name / "metrics.json").read_bytes() for name in ("killed", "whole"))
    assert killed == whole


def _wait_for_growth(journal: Path, process: subprocess.Popen) -> None:
    """Until the journal holds more than before, or the process has ended."""
    before = _size(journal)
    while process.poll() is None and _size(journal) <= before:
        time.sleep(0.02)


def _size(journal: Path) -> int:
    try:
        return sum(os.stat(path).st_size for path in journal.glob("*.lines"))
    except FileNotFoundError:
        return 0
