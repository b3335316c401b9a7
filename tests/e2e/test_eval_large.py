"""An evaluation as large as a benchmark, and one killed again and again: memory, speed, the same end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eval_samples import command_words, write_examples
from killed_eval import size

TESTS = Path(__file__).parents[1] / "support"
SEGRL = [sys.executable, "-c", "from segrl.cli import main; main()"]

WATCHED = """
import json, os, sys
from pathlib import Path
import segrl.evaluation
from segrl.cli import main

out, n, *words = sys.argv[1:]
held = {}

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def watched_run(*arguments, on_window, **options):
    def watch(records, finished, total):
        on_window(records, finished, total)
        if finished in (int(n) // 5, int(n)):
            held[finished] = resident_mib()

    is_finished = whole_run(*arguments, on_window=watch, **options)
    Path(out).write_text(json.dumps({"held": list(held.values()), "end": resident_mib()}))
    return is_finished

whole_run, segrl.evaluation.run = segrl.evaluation.run, watched_run
sys.argv = ["segrl", *words]
main()
"""
"""`segrl eval`, with the memory that it holds noted on the way."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("n", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_memory_is_flat_and_the_speed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], n: int) -> None:
    settings = write_examples(tmp_path, n)
    command = [
        sys.executable,
        "-c",
        WATCHED,
        str(tmp_path / "held.json"),
        str(n),
        *command_words(settings, tmp_path / "run"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "held.json").read_text())
    first, last = found["held"]
    assert last - first < 8, "memory grew while examples were answered"
    assert found["end"] - first < 48, "memory grew while the result was written"
    speed = json.loads((tmp_path / "run" / "summary.json").read_text())["speed"]
    assert speed["samples"] == n
    told = result.stdout.splitlines()[-1]
    assert told.startswith(f"speed   {speed['samples_per_second']:.1f} samples per second over {n} samples, peak ")
    with capsys.disabled():
        print(f"\nsegrl eval, {n} scripted answers: {told}; {first:.0f} MiB held after a fifth, {last:.0f} at the end")


def same_metrics(one: Path, other: Path) -> bool:
    return (one / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()


@pytest.mark.long
def test_the_command_killed_twenty_times_ends_as_if_undisturbed(tmp_path: Path) -> None:
    killed = [sys.executable, str(TESTS / "killed_eval.py"), str(tmp_path), "400", "20", "command"]
    result = subprocess.run(killed, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, result.stderr
    kills, runs = map(int, result.stdout.split())
    assert kills == 20
    for number in range(runs):
        assert same_metrics(tmp_path / f"run{number}", tmp_path / "warm")
        assert (tmp_path / f"run{number}" / "report.html").exists()


@pytest.mark.long
def test_two_processes_killed_three_times_end_as_one_undisturbed(tmp_path: Path) -> None:
    settings, draw = write_examples(tmp_path, 2000), random.Random(0)
    alone, shared = ([*SEGRL, *command_words(settings, tmp_path / name)] for name in ("alone", "shared"))
    subprocess.run(alone, check=True, stdout=subprocess.DEVNULL)
    for _ in range(3):
        with subprocess.Popen([*shared, "--processes", "2"], stdout=subprocess.DEVNULL) as process:
            before = size(tmp_path / "shared" / "journal")
            while process.poll() is None and size(tmp_path / "shared" / "journal") <= before:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed: take more examples"
    subprocess.run([*shared, "--processes", "2"], check=True, stdout=subprocess.DEVNULL)
    assert same_metrics(tmp_path / "alone", tmp_path / "shared")
