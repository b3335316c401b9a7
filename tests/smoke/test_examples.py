"""Every file of examples/ is run as its first lines say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import running
from small import save_policy
from typer.testing import CliRunner

from segrl import answers
from segrl.cli.app import app
from segrl.files import read_rows
from segrl.types import MaskPrompt, Status

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHORT = ("trainer.max_steps=1", "trainer.save_steps=1", "trainer.per_device_train_batch_size=4", "dataset.n=8")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"))


def train(name: str, policy: Path, out: Path, *overrides: str) -> list[dict]:
    line = ["train", str(EXAMPLES / f"{name}.yaml"), "--out", str(out), f"policy={policy}", *SHORT, *overrides]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return list(read_rows(out / "steps.jsonl"))


def test_every_example_is_run_here():
    tested = {"own_reward", "own_dataset", "own_answer_format", "http_client", "grpo_in_plain_trl"}
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml")} == tested
    scripts = [path for path in EXAMPLES.glob("*.py") if (EXAMPLES / f"{path.stem}.yaml").exists()]
    assert all(f"segrl train examples/{path.stem}.yaml" in path.read_text() for path in scripts)


@pytest.mark.parametrize(("name", "column"), [("own_reward", "few_points"), ("own_dataset", "iou")])
def test_reinforcement_learning_with_code_of_ones_own(policy, tmp_path, name, column):
    grpo = ("trainer.max_completion_length=6", "reward_check=false")
    (row,) = train(name, policy, tmp_path / "run", *grpo)
    assert any(column in key for key in row), sorted(row)


def test_an_answer_format_of_ones_own(policy, tmp_path, monkeypatch):
    train("own_answer_format", policy, tmp_path / "run")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    lines = answers.get("python:own_answer_format.Lines")
    prompts = [MaskPrompt(box_xyxy=(1, 2, 30, 40)), MaskPrompt(box_xyxy=(5, 6, 7, 8))]
    assert lines.parse(lines.render(prompts, "Two.")).prompts == tuple(prompts)
    assert lines.parse(lines.render([])).status is Status.NO_TARGET
    assert lines.parse("box: 30 2 1 40").status is Status.BAD_VALUES
    assert lines.parse("the cup").status is Status.NO_ANSWER


def test_the_http_client(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "photo.png")
    script = [sys.executable, str(EXAMPLES / "http_client.py"), str(tmp_path / "photo.png")]
    with running() as server:
        done = subprocess.run([*script, "box 10 20 30 40", server.url], capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[1:] == ["400 pixels, box [10.0, 20.0, 30.0, 40.0], score None"], done.stderr
        refused = subprocess.run([*script, "", server.url], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert re.match(r"the server refused: 4\d\d ", refused.stderr)


def test_a_script_in_plain_trl(policy, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    text = (ROOT / "recipes" / "tiny_quickstart.yaml").read_text()
    recipe.write_text(
        re.sub(r"^policy: .*$", f"policy: {policy}", text, flags=re.MULTILINE).replace("n: 100000", "n: 8")
    )
    script = shutil.copy(EXAMPLES / "grpo_in_plain_trl.py", tmp_path)
    line = [sys.executable, script, str(recipe), str(tmp_path / "out"), "1", "2", "6"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
