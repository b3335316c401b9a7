"""Two processes on a CPU (gloo) train as one with the same global batch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small import save_policy
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.files import read_rows
from segrl.training.checkpoints import Pictures
from segrl.training.distributed import command

SCRIPT = Path(__file__).parents[1] / "support" / "two_processes.py"
CLOSE = 1e-4
RECIPE = {
    "method": "grpo",
    "segmenter": "box",
    "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape"]},
    "rewards": {"iou": 1.0, "format": 0.5},
    "reward_check": False,
    "trainer": {
        "max_steps": 3,
        "save_steps": 2,
        "num_generations": 4,
        "max_completion_length": 64,
        "loss_type": "dapo",
        "use_bias_correction_kl": False,
        "learning_rate": 0.3,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
    },
}
RECIPES: dict[str, dict[str, object]] = {
    "kl": {"trainer": {**RECIPE["trainer"], "beta": 0.1}},
    "plain": {"trainer": {**RECIPE["trainer"], "beta": 0.0}},
    "replace": {"trainer": {**RECIPE["trainer"], "beta": 0.0}, "dynamic_sampling": "replace"},
    "select": {
        "trainer": {**RECIPE["trainer"], "beta": 0.1, "loss_type": "grpo", "scale_rewards": "batch"},
        "select": {"best": 1, "worst": 1},
        "dynamic_sampling": "skip",
    },
}
LOGGED = {"kl": ["kl"], "plain": [], "replace": ["groups/flat", "groups/replaced"]}
LOGGED["select"] = ["kl", "groups/flat", "groups/skipped"]


def run(line: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints that goes well."""
    tests = os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    own = environment or {**os.environ, "PYTHONPATH": tests, "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    policy = save_policy(folder / "policy")
    for name, own in RECIPES.items():
        values = {**RECIPE, "policy": str(policy), **own}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    for line in ([sys.executable, str(SCRIPT), str(folder), "1"], command(2, [str(SCRIPT), str(folder), "2"])):
        assert "each prompt is read once per group" in run(line, folder)
    return folder


def test_sharded_weights_have_the_same_gradient_either_way(folder: Path, tmp_path: Path):
    script = SCRIPT.with_name("sharded_update.py")
    found = run(command(2, [str(script), str(folder / "plain.yaml"), str(tmp_path)]), folder)
    [said] = [json.loads(line) for line in found.splitlines() if line.startswith("{")]
    assert said["kind"].startswith("FSDP")
    assert said["difference"] < 1e-5
    assert any("each prompt is read once per group" in line for line in said["lines"])


@pytest.mark.parametrize("name", RECIPES)
def test_rewards_gradient_norms_and_weights_agree(folder: Path, name: str):
    one, two = (read_rows(folder / f"{name}-{n}" / "steps.jsonl") for n in (1, 2))
    keys = ["reward", "reward_std", "rewards/iou/mean", "giou", "grad_norm", "loss", *LOGGED[name]]
    assert len(one) == len(two) == 3
    for alone, together in zip(one, two, strict=True):
        assert {key: together[key] for key in keys} == {key: pytest.approx(alone[key], abs=CLOSE) for key in keys}
    start = load_file(folder / "policy" / "model.safetensors")
    alone, together = (load_file(folder / f"{name}-{n}" / "model" / "model.safetensors") for n in (1, 2))
    assert max((alone[key] - start[key]).abs().max() for key in alone) > 100 * CLOSE
    assert max((alone[key] - together[key]).abs().max() for key in alone) < CLOSE


def test_two_processes_go_on_where_they_were_stopped(folder: Path):
    """The last recipe's run, copied without what came after its second step, ends as it did."""
    whole, broken = folder / f"{max(RECIPES)}-2", folder / "again"
    starts = json.loads((broken / "run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [None, "2"]
    steps = [
        [(row["step"], row["loss"], row["grad_norm"]) for row in read_rows(p / "steps.jsonl")] for p in (whole, broken)
    ]
    assert steps[0] == steps[1]
    weights = [load_file(path / "model" / "model.safetensors") for path in (whole, broken)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_cases_differ(folder: Path):
    replaced, selected = (read_rows(folder / f"{name}-2" / "steps.jsonl") for name in ("replace", "select"))
    assert [(row["groups/flat"], row["groups/replaced"]) for row in replaced] == [(1.0, 1.0)] * 3
    assert {row["groups/skipped"] for row in selected} > {0.5}
    plain, kl = (read_rows(folder / f"{name}-1" / "steps.jsonl") for name in ("plain", "kl"))
    assert kl[-1]["kl"] > 10 * CLOSE
    assert abs(kl[-1]["grad_norm"] - plain[-1]["grad_norm"]) > CLOSE


def test_train_with_processes(folder: Path, tmp_path: Path):
    """`--processes 2` from the command line: sampled completions, one step, both ranks in the checkpoint."""
    overrides = ["trainer.max_steps=1", "trainer.max_completion_length=4", "trainer.per_device_train_batch_size=4"]
    arguments = ["train", str(folder / "plain.yaml"), "--out", str(tmp_path / "run"), "--processes", "2", *overrides]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    line = (tmp_path / "run" / "launch.txt").read_text().strip()
    assert "--num_processes 2" in line
    assert line in done.stdout
    start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
    assert (start["launched_by"], start["processes"]) == (line, 2)
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-1"
    marker = json.loads((checkpoint / "segrl_complete.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= marker["files"].keys()
    logged = [row["image_id"] for row in read_rows(tmp_path / "run" / "rollouts.jsonl")]
    pictures = Pictures(tmp_path / "run" / "pictures")
    assert len(logged) == 2  # a group of each process
    assert all(pictures.open(image_id) for image_id in logged)
    assert (tmp_path / "run" / "report.html").exists()


def test_a_failed_process_ends_in_one_line(folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("segrl.training.distributed.command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    arguments = ["train", str(folder / "plain.yaml"), "--out", str(tmp_path / "run"), "--processes", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stderr == "segrl: training ended with status 3; what went wrong stands above\n"
