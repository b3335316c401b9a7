from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from segrl.cli.app import app

SEGRL = [sys.executable, "-c", "from segrl.cli import main; main()"]


def segrl(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*SEGRL, *arguments], capture_output=True, text=True, timeout=300, **options)


def test_help_is_quick_and_loads_no_torch():
    before, begun = os.times(), time.perf_counter()
    result = segrl("--help")
    wall = time.perf_counter() - begun
    after = os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("quickstart", "train", "report", "doctor"))
    assert min(wall, busy) < 0.5  # processor time where other work keeps the machine busy
    code = "import sys, segrl.cli.app, segrl.experiment, segrl.cli.evaluation_tables; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_version():
    assert segrl("--version").stdout.startswith("segrl ")


def test_doctor_names_versions_and_devices():
    result = segrl("doctor")
    assert result.returncode in (0, 1)
    assert "torch" in result.stdout
    assert "CPU" in result.stdout
    assert "tiny-scenes" in result.stdout
    assert result.stdout.count(", the default: ") == 1
    assert (result.returncode == 0) == ("nothing is missing" in result.stdout)


RECIPE = """
method: grpo
policy: tiny
segmenter: box
dataset: {name: tiny, n: 8, seed: 1}
rewards: {iou: 1.0}
"""

WRONG = [
    (None, [], "cannot read the recipe"),
    ("method: [", [], "no valid YAML"),
    (RECIPE + "trainor: {}", [], "trainer"),
    (RECIPE, ["trainer.learning_rat=1"], "learning_rate"),
    (RECIPE, ["policy=/nowhere"], "/nowhere"),
    (RECIPE, ["dataset.kindz=1"], "kinds"),
    (RECIPE, ["what"], "override"),
    (RECIPE, ["rewards.iuo=1"], "iou"),
    (RECIPE, ["dataset.n=1e5"], "n is a whole number"),
    (RECIPE, ["dataset.seed=-1"], "seed is a whole number"),
    (RECIPE, ["dataset.gold=tigth"], "gold is loose"),
    (RECIPE, ["dataset.sample=3"], "sample"),
    (RECIPE, ["dataset={name: folder, root: ., mask_values: 7}"], "mask_values is auto"),
    (RECIPE, ["dataset.agument={views: 2}"], "did you mean 'augment'"),
    (RECIPE, ["dataset.augment={view: 2}"], "augment is"),
    (RECIPE, ["segmenter={name: grabcut, max_side: x}"], "max_side"),
    (RECIPE, ["trainer.num_train_epochs=three"], "num_train_epochs is a number, not 'three'"),
    (RECIPE, ["trainer.learning_rate=fast"], "learning_rate is a number, not 'fast'"),
    (RECIPE, ["trainer.max_steps=1e1"], "max_steps is a whole number, not 10.0"),
    (RECIPE, ["trainer.bf16=perhaps"], "bf16 is true or false or null, not 'perhaps'"),
    (RECIPE, ["dataset.day=2024-02-30"], "no valid YAML"),
]


@pytest.mark.parametrize(("recipe", "overrides", "named"), WRONG, ids=[named for _, _, named in WRONG])
def test_mistakes_end_in_one_line(tmp_path, recipe, overrides, named):
    path = tmp_path / "recipe.yaml"
    if recipe is not None:
        path.write_text(recipe)
    result = CliRunner().invoke(app, ["train", str(path), "--out", str(tmp_path / "out"), *overrides])
    assert result.exit_code == 2, result.exception
    assert named in result.stderr
    assert result.stderr.startswith("segrl: ")
    assert result.stderr.count("\n") == 1


def test_a_mistake_claims_no_directory(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for wrong in ("trainer.learning_rat=1", "policy=/nowhere", "policy=/elsewhere"):
        arguments = ["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"), wrong]
        assert "holds a run" not in CliRunner().invoke(app, arguments).stderr


def test_out_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "file" / "run"
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml"), "--out", str(out)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot make the directory" in result.stderr


def test_report_of_no_run(tmp_path):
    result = segrl("report", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("segrl: ")
    assert result.stderr.count("\n") == 1


def test_report_prints_its_path(tmp_path):
    (tmp_path / "steps.jsonl").write_text(json.dumps({"step": 1, "reward": 0.5}) + "\n")
    result = segrl("report", str(tmp_path))
    assert result.stdout.strip() == str(tmp_path / "report.html")
    assert result.returncode == 0


def test_interrupt_is_one_line(tmp_path):
    code = (
        "import segrl.reporting\n"
        "def stop(path): raise KeyboardInterrupt\n"
        "segrl.reporting.write_report = stop\n"
        "from segrl.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code, "report", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 130
    assert result.stderr.startswith("segrl: stopped")
    assert result.stderr.count("\n") == 1
