"""The README's commands, as a person runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segrl.tiny import policy_dir

SEGRL = [sys.executable, "-c", "from segrl.cli import main; main()"]
MINUTES_PROMISED = 12

pytestmark = pytest.mark.skipif(
    not any(policy_dir().glob("*.safetensors")) and "CI" not in os.environ,
    reason="the tiny policy's weights are not there; CI has to have them",
)


def quickstart(out: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*SEGRL, "quickstart", "--out", str(out), *options], capture_output=True, text=True, timeout=3600
    )


def summary_of(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_two_steps_end_in_table_and_report(tmp_path):
    """Also: the same command again does nothing twice, and another recipe is refused."""
    out = tmp_path / "run"
    first = quickstart(out, "--steps", "2", "--seed", "1")
    assert first.returncode == 0, first.stderr[-2000:]
    assert "measuring before training: 200/200" in first.stdout
    assert "gIoU on held-out examples" in first.stdout
    assert first.stdout.splitlines()[-1].split() == ["report", str(out / "report.html")]
    assert "Traceback" not in first.stderr

    summary = summary_of(out)
    assert summary["before"]["n"] == summary["after"]["n"] == 200
    assert summary["steps"] == 2
    assert {"comparison", "seconds"} <= summary.keys()
    compared = subprocess.run(
        [*SEGRL, "compare", *(str(out / "evaluation" / stage) for stage in ("before", "after"))],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert compared.returncode == 0, compared.stderr[-2000:]
    assert "differs policy.name: 'tiny'" in compared.stdout
    page = (out / "report.html").read_text()
    assert page.count("<article") >= 6
    assert page.count("<image id=") >= 6
    assert (out / "model" / "config.json").exists()

    again = quickstart(out, "--steps", "2", "--seed", "1")
    assert again.returncode == 0
    assert summary_of(out) == summary
    other = quickstart(out, "--steps", "3", "--seed", "1")
    assert other.returncode == 2
    assert "max_steps" in other.stderr


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_policy_points_better_after_the_whole_run(tmp_path, seed):
    result = quickstart(tmp_path, "--seed", str(seed))
    assert result.returncode == 0, result.stderr[-2000:]
    summary = summary_of(tmp_path)
    giou = summary["comparison"]["metrics"]["giou"]
    assert giou["difference"] >= 0.08
    assert giou["ci95"][0] > 0
    assert summary["seconds"] <= MINUTES_PROMISED * 60
