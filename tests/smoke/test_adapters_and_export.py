"""LoRA trains, and what was trained is exported: as an adapter, merged, or whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import SETTINGS, save_policy
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from segrl import policies
from segrl.cli.app import app
from segrl.datasets import load
from segrl.errors import ModelError
from segrl.evaluation import read_jsonl
from segrl.experiment import improve
from segrl.files import read_rows
from segrl.policies import read_settings
from segrl.training import parse_recipe, train

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

LORA = {"r": 4, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": "all-linear", "exclude_modules": ".*visual.*"}
SFT = {"method": "sft", "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape"]}}
GRPO = SFT | {
    "method": "grpo",
    "segmenter": "box",
    "reward_check": False,
    "rewards": {"iou": 1.0, "length": {"weight": 1.0, "python": "test_adapters_and_export.characters"}},
}
TRAINER = {"max_steps": 2, "gradient_checkpointing": True, "per_device_train_batch_size": 4, "learning_rate": 0.01}


def characters(rollout) -> float:
    """A reward that differs between random completions."""
    return float(sum(map(ord, rollout.text)) % 11)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return save_policy(tmp_path_factory.mktemp("adapters") / "policy")


@pytest.fixture(scope="module")
def runs(policy, tmp_path_factory) -> dict[str, Path]:
    """SFT and GRPO through adapters, with a KL to the weights below them, and SFT of everything."""
    place = tmp_path_factory.mktemp("runs")
    grpo = {"num_generations": 4, "max_completion_length": 6, "beta": 0.1, **TRAINER}
    recipes = {
        "sft": {**SFT, "trainer": TRAINER, "peft": LORA},
        "grpo": {**GRPO, "trainer": grpo, "peft": LORA},
        "whole": {**SFT, "trainer": TRAINER},
    }
    for name, values in recipes.items():
        recipe = parse_recipe({**values, "policy": str(policy)})
        train(recipe, place / name, say=lambda line: None, progress=False)
    return {name: place / name for name in recipes}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(30, 46)[None]).logits


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_adapters_alone_are_trained_and_kept(runs, policy, name):
    rows = read_rows(runs[name] / "steps.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["grad_norm"] > 0 for row in rows)
    kept = load_file(runs[name] / "model" / "adapter_model.safetensors")
    assert all("lora_" in key and "visual" not in key for key in kept)
    assert any(tensor.abs().max() > 0 for key, tensor in kept.items() if "lora_B" in key)
    if name == "grpo":
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-3)
        assert rows[1]["kl"] > 0
    example = load("tiny", n=1, seed=1)[0]
    answers = policies.load(str(runs[name] / "model")).generate([example.image], ["Identify"], max_new_tokens=2)
    assert answers[0][0].n_tokens <= 2


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_an_adapter_and_its_merge_say_the_same(runs, policy, tmp_path, name):
    for arguments in ([], ["--merge"]):
        out = tmp_path / f"export{len(arguments)}"
        done = CliRunner().invoke(app, ["export", str(runs[name]), "--out", str(out), *arguments])
        assert done.exit_code == 0, done.output
        assert AutoProcessor.from_pretrained(out).tokenizer.eos_token
        assert read_settings(out) == replace(SETTINGS, segmenter="box" if name == "grpo" else None)
    assert (tmp_path / "export0" / "adapter_config.json").exists()
    assert not list((tmp_path / "export1").glob("adapter_*"))
    base, adapter, merged = (
        AutoModelForImageTextToText.from_pretrained(path)
        for path in (policy, tmp_path / "export0", tmp_path / "export1")
    )
    assert torch.allclose(logits(adapter), logits(merged), atol=1e-4)
    assert not torch.allclose(logits(base), logits(merged), atol=1e-3)


def test_an_adapter_whose_base_has_moved(runs, policy, tmp_path):
    """As the policy of a recipe: a run starts from the two merged, and an evaluation takes both."""
    adapter, moved = tmp_path / "adapter", tmp_path / "moved"
    shutil.copytree(runs["sft"] / "model", adapter)
    shutil.copytree(policy, moved)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/home/somebody/x"}))
    held_out = {"dataset": {"n": 2, "seed": 4}, "max_new_tokens": 4}
    values = {**SFT, "segmenter": "box", "evaluation": held_out, "trainer": TRAINER | {"learning_rate": 0.0}}
    with pytest.raises(ModelError, match=r"is not here: .*policy\.base"):
        improve(parse_recipe({**values, "policy": str(adapter)}), tmp_path / "run", say=lambda line: None)
    recipe = parse_recipe({**values, "policy": {"path": str(adapter), "base": str(moved)}})
    improve(recipe, tmp_path / "run", say=lambda line: None)
    done = CliRunner().invoke(app, ["export", str(runs["sft"]), "--merge", "--out", str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    start, end, merged = (
        logits(AutoModelForImageTextToText.from_pretrained(path))
        for path in (tmp_path / "run" / "start", tmp_path / "run" / "model", tmp_path / "merged")
    )
    assert torch.equal(start, end)
    assert torch.allclose(start, merged, atol=1e-4)
    before, after = (
        read_jsonl(tmp_path / "run" / "evaluation" / name / "records.jsonl") for name in ("before", "after")
    )
    assert [record.text for record in before] == [record.text for record in after]


def test_a_policy_trained_whole(runs, policy, tmp_path):
    done = CliRunner().invoke(app, ["export", str(runs["whole"]), "--merge", "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    assert "no adapter to merge" in done.stdout
    out = runs["whole"] / "export"
    assert AutoModelForImageTextToText.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "by SFT on `tiny`" in card
    again = CliRunner().invoke(app, ["export", str(runs["whole"])])
    assert (again.exit_code, "is not empty" in again.stderr) == (2, True)


def test_a_run_that_is_not_finished_gives_its_last_checkpoint(runs, tmp_path):
    shutil.copytree(runs["sft"], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    assert CliRunner().invoke(app, ["export", str(tmp_path / "run")]).exit_code == 0
    kept = load_file(tmp_path / "run" / "export" / "adapter_model.safetensors")
    assert kept.keys() == load_file(runs["sft"] / "model" / "adapter_model.safetensors").keys()
    assert not list((tmp_path / "run" / "export").glob("optimizer*"))


def test_the_best_checkpoint(runs, tmp_path):
    shutil.copytree(runs["sft"], tmp_path / "run")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--best"])
    assert (done.exit_code, "no checkpoint with held-out answers" in done.stderr) == (2, True)
    place = tmp_path / "run" / "evaluation" / "held_out" / "step_2"
    place.mkdir(parents=True)
    (place / "metrics.json").write_text('{"metrics": {"giou": {"value": 0.5}}}')
    assert CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--best"]).exit_code == 0


def test_what_is_no_run(tmp_path):
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "recipe.yaml").write_text(json.dumps({"method": "sft", "policy": "p", "dataset": "tiny"}))
    done = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert (done.exit_code, "it has the stages rl" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "rl")])
    assert (done.exit_code, "has no checkpoint yet" in done.stderr) == (2, True)


def test_push(runs, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, name, **options):
            calls.append((name, options))

        def upload_folder(self, *, repo_id, folder_path):
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            if repo_id == "not/mine":
                raise ValueError("403\nmore")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    done = CliRunner().invoke(app, ["export", str(runs["sft"]), "--out", str(tmp_path / "a"), "--push", "me/it"])
    assert done.exit_code == 0, done.output
    assert calls[0] == ("me/it", {"private": True, "exist_ok": True})
    assert {"README.md", "adapter_model.safetensors", "segrl.json"} <= set(calls[1][1])
    done = CliRunner().invoke(app, ["export", str(runs["sft"]), "--out", str(tmp_path / "b"), "--push", "not/mine"])
    assert done.exit_code == 2
    assert done.stderr.endswith("but not on the hub as not/mine: 403\n")
