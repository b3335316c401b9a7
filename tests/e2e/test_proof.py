"""The proof, the cold start's plateau and the run on real photographs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segrl.tiny import policy_dir

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "penn-fudan"
IN_CI = "CI" in os.environ

needs_weights = pytest.mark.skipif(
    not any(policy_dir().glob("*.safetensors")) and not IN_CI,
    reason="the tiny policy's weights are not there; CI has to have them",
)
needs_photographs = pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir() and not IN_CI, reason=f"no photographs in {PHOTOGRAPHS}; CI has to have them"
)


def run(script: str, *options: str, timeout: int = 1200) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "proof" / script), *options], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@needs_weights
@pytest.mark.timeout(1200)
def test_the_short_proof_writes_every_table_and_is_not_run_twice(tmp_path: Path):
    options = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "proof.md"), "--short"]
    assert "training rl-0" in run("run.py", *options)
    page = (tmp_path / "proof.md").read_text()
    for heading in (
        "gIoU",
        "RL against its controls",
        "By kind of query",
        "Understanding and pointing apart",
        "Queries swapped between scenes",
    ):
        assert f"## {heading}" in page
    assert "nan" not in page
    assert len(re.findall(r"^\| 0 \| ", page, flags=re.MULTILINE)) == 6  # five arms and their differences
    assert "training" not in run("run.py", *options)
    assert (tmp_path / "proof.md").read_text() == page


@needs_weights
@needs_photographs
@pytest.mark.timeout(1200)
def test_the_photographs_stand_beside_their_baselines(tmp_path: Path):
    out, page = tmp_path / "out", tmp_path / "people.md"
    quick = [
        "stages.cold_start.trainer.max_steps=2",
        "stages.cold_start.trainer.per_device_train_batch_size=8",
        "stages.rl.trainer.max_steps=1",
        "stages.rl.trainer.save_steps=1",
        "stages.rl.trainer.per_device_train_batch_size=8",
        "stages.rl.trainer.max_completion_length=40",
        "stages.rl.evaluation.max_new_tokens=40",
    ]
    run("people.py", "--root", str(PHOTOGRAPHS), "--out", str(out), "--page", str(page), *quick)
    rows = dict(re.findall(r"^\| (.+?) \| (0\.\d+) \[", page.read_text(), flags=re.MULTILINE))
    assert float(rows["the whole image"]) == pytest.approx(0.167, abs=0.002)  # the share of people in the 50
    (constant,) = (float(value) for name, value in rows.items() if name.startswith("best constant box"))
    assert constant == pytest.approx(0.257, abs=0.002)
    assert float(rows["gold mask prompts through GrabCut"]) > constant


@needs_weights
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_more_minutes_of_the_cold_start_gain_little(tmp_path: Path):
    segrl = Path(sys.executable).with_name("segrl")
    subprocess.run([segrl, "train", ROOT / "proof" / "plateau.yaml", "--out", tmp_path / "run"], check=True)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["comparison"]["metrics"]["giou"]["difference"] < 0.02
    assert summary["before"]["metrics"]["parse_rate"]["value"] >= 0.95
    assert summary["before"]["slices"]["kind"]["colour_shape"]["metrics"]["giou"]["value"] >= 0.5


@needs_weights
@pytest.mark.long
@pytest.mark.timeout(14400)
def test_the_reward_teaches_and_what_was_known_is_kept(tmp_path: Path):
    run("run.py", "--out", str(tmp_path / "out"), "--page", str(tmp_path / "proof.md"), timeout=14400)
    page = (tmp_path / "proof.md").read_text()
    verdicts = [line.split(" | ") for line in re.findall(r"^\| ([0-9] \| [+-].*) \|$", page, flags=re.MULTILINE)]
    assert [cells[0] for cells in verdicts] == ["0", "1", "2"]
    for _, _, over_sft, over_shuffled, share, *_ in verdicts:
        assert float(re.findall(r"[+-]0\.\d+", over_sft)[1]) > 0  # the lower ends of the intervals
        assert float(re.findall(r"[+-]0\.\d+", over_shuffled)[1]) > 0
        assert float(share.rstrip("%")) >= 25
    kept = re.findall(r"^\| RL, seed [0-9] \| [^|]+ \| ([+-]0\.\d+)", page, flags=re.MULTILINE)
    taught = re.findall(r"^\| (?:colour_shape|pair) \| [^|]+ \| (.*) \|$", page, flags=re.MULTILINE)
    gains = [gain for row in taught for gain in re.findall(r"([+-]0\.\d+) \[", row)]
    assert (len(kept), len(gains)) == (3, 6)
    assert min(map(float, [*kept, *gains])) >= -0.02
