"""The benchmark runs, and its results have the fields that readers of them expect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "run.py"


def test_a_training_step_in_short(tmp_path):
    command = [sys.executable, "-W", "ignore", str(BENCH.with_name("step.py")), "--short", "--steps", "4"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "step.json").read_text())
    assert found["samples_per_second"] > 0
    assert 0 < found["reward_share"] < 1
    assert found["planned_gb"] > 0
    assert found["seconds_rollout"] + found["seconds_reward"] + found["seconds_update"] > 0


def test_the_update_in_short_goes_on_after_the_rows_it_has(tmp_path):
    command = [sys.executable, "-W", "ignore", str(BENCH.with_name("update.py")), "--short", "--threads", "1"]
    command += ["--out", str(tmp_path), "--resume", "--dtypes"]
    found = []
    for dtypes in (["float32"], ["float32", "bfloat16"]):
        done = subprocess.run([*command, *dtypes], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "update.json").read_text())["rows"])
    rows = found[1]
    assert rows[0] == found[0][0]  # to the last digit: it was not measured again
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        assert row["tokens"]["ours"] < row["tokens"]["plain"] / 2
        assert 0 < min(row["seconds"].values()) < 60
    assert rows[0]["difference"] < 1e-5


def test_a_rollout_in_short(tmp_path):
    command = [sys.executable, "-W", "ignore", str(BENCH.with_name("rollout.py")), "--short", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rollout.json").read_text())["rows"]
    assert 0 < min(row["seconds"].values()) < 60
    assert row["equal"] == 1


def test_the_benchmark_in_short(tmp_path):
    command = [sys.executable, str(BENCH), "--short", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 7
    for row in rows:
        assert {"name", "goal", "measured", "met", "encoder_calls", "decoder_calls"} <= row.keys()
        assert row["measured"] > 0
        assert row["name"] in done.stdout
    assert [row["encoder_calls"] for row in rows] == [1, 1, 1, 0, 0, 0, 0]
    tables = json.loads((tmp_path / "growth.json").read_text())
    assert tables["floor"]["encode_operations"] > 0
    assert {entry["sweep"] for entry in tables["growth"]} == {"group size", "objects", "image side", "images"}


def test_a_step_by_compute_type_in_short(tmp_path):
    command = [sys.executable, str(BENCH.with_name("cpu.py")), "--short", "--only", "native,float32,alone"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "cpu.json").read_text())["rows"]
    assert row["seconds"] >= row["rollout"] + row["reward"] + row["update"] > 0


@pytest.mark.timeout(3600)
def test_the_check_of_a_gpu_in_short(tmp_path):
    script = str(BENCH.with_name("gpu_check.py"))
    done = subprocess.run(
        [sys.executable, script, "--short", "--out", str(tmp_path)], capture_output=True, text=True, timeout=3500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "gpu.md").read_text()
    for told in (
        "gIoU before and after",
        "the reward's share of the step",
        "mean IoU of the masks",
        "over plain TRL's",
    ):
        assert told in page


def test_the_check_of_a_gpu_needs_one():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, str(BENCH.with_name("gpu_check.py"))], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_seconds_and_tokens_of_an_answer_in_short(tmp_path):
    command = [sys.executable, "-W", "ignore", str(BENCH.with_name("answers.py")), "--short", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "answers.json").read_text())["rows"]
    words, one, vote = rows[:3]
    assert min(row["seconds"] for row in rows) > 0
    assert words["tokens"] == 0 < one["tokens"] < vote["tokens"]
    assert "| one answer | GrabCut |" in done.stdout
