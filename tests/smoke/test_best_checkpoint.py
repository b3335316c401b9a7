"""`checkpoints: {best: true}` in a run that gets worse: the checkpoint that answered best outlives the newer ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.evaluation import read_jsonl
from segrl.files import read_rows
from segrl.tiny import resolve_policy
from segrl.training import parse_recipe, train

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

RECIPE = {
    "method": "sft",
    "policy": "tiny",
    "segmenter": "box",
    "dataset": {"name": "tiny", "n": 16, "seed": 3, "kinds": ["colour_shape"]},
    "trainer": {
        "max_steps": 4,
        "save_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.1,  # the first step has a rate of 0, the later ones ruin the policy
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 2,
        "gradient_checkpointing": False,
    },
    "evaluation": {"dataset": {"n": 6, "seed": 9}, "every": 1, "batch_size": 6, "max_new_tokens": 160},
    "checkpoints": {"last": 2, "best": True},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("best") / "run"
    train(parse_recipe(RECIPE), out, say=lambda line: None, progress=False)
    return out


def test_the_best_by_held_out_giou_is_kept_beside_the_newest(run: Path):
    logged = {row["step"]: row["held_out/giou"] for row in read_rows(run / "steps.jsonl")}
    records = {step: read_jsonl(run / "evaluation" / "held_out" / f"step_{step}" / "records.jsonl") for step in logged}
    assert logged == {step: pytest.approx(sum(r.iou for r in some) / 6) for step, some in records.items()}
    best = max(logged, key=lambda step: (logged[step], -step))
    assert best < 3, "or it would be kept for being new"
    kept = {int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("checkpoint-*")}
    assert kept == {best, 3, 4}


def test_export_best_gives_it(run: Path, tmp_path: Path):
    done = CliRunner().invoke(app, ["export", str(run), "--best", "--out", str(tmp_path / "best")])
    assert done.exit_code == 0, done.output
    exported = load_file(tmp_path / "best" / "model.safetensors")
    last = load_file(run / "model" / "model.safetensors")
    shipped = load_file(Path(resolve_policy("tiny")) / "model.safetensors")
    assert all(torch.allclose(exported[key].float(), shipped[key].float()) for key in shipped)
    assert not all(torch.allclose(exported[key], last[key]) for key in last)
