"""What ends a training run without being a fault of ours ends it in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segrl.errors import ModelError, RecipeError, SegrlError
from segrl.files import read_rows
from segrl.policies import PolicySettings, write_settings
from segrl.tiny.model import Shape, save
from segrl.training import parse_recipe, train

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SMALL = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("policy")
    save(directory, SMALL)
    write_settings(directory, PolicySettings("seg-r1", "resized", (112, 112)))
    return directory


def sft(policy: Path, **trainer) -> dict:
    options = {"gradient_checkpointing": False, "per_device_train_batch_size": 2, "max_steps": 2, **trainer}
    return {"method": "sft", "policy": str(policy), "dataset": {"name": "tiny", "n": 4, "seed": 3}, "trainer": options}


def grpo(policy: Path, **trainer) -> dict:
    fewer = {"num_generations": 2, "max_completion_length": 6, **trainer}
    values = {"method": "grpo", "segmenter": "box", "rewards": {"iou": 1, "length_budget": 1}, "reward_check": False}
    return {**sft(policy, **fewer), **values, "dataset": {"name": "tiny", "n": 4, "seed": 3, "kinds": ["colour_shape"]}}


@pytest.mark.parametrize("method", [grpo, sft])
def test_a_diverging_run_ends_with_its_finding(policy, tmp_path, method):
    """Without clipping and at a huge learning rate the weights are no numbers after a few steps.

    At 10, which ended the tiny policy in the sampler's traceback, a policy of this size stays finite.
    """
    values = method(policy, max_steps=30, learning_rate=1e30, max_grad_norm=1e30, save_steps=30)
    if method is grpo:
        values["rewards"] = {"own": {"weight": 1, "python": "test_train_ends.length"}}
    with pytest.raises(SegrlError, match=r"^step \d+: .*\(not_finite\)\. .* lower learning rate") as caught:
        train(parse_recipe(values), tmp_path / "run", say=lambda line: None, progress=False)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run" / "checkpoints").glob("checkpoint-30"))


def length(rollout) -> float:
    """A reward that differs between random completions."""
    return float(len(rollout.text) % 7)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file")
def test_a_full_disk_ends_in_one_line_and_the_next_start_goes_on(policy, tmp_path):
    """A limit on the size of one file stands for the disk: the optimizer's state is the first to reach it."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(sft(policy, save_steps=1)))
    small = max(path.stat().st_size for path in policy.iterdir()) // 1024 + 8
    command = [str(Path(sys.executable).with_name("segrl")), "train", str(recipe), "--out", str(tmp_path / "run")]
    full = subprocess.run(
        ["bash", "-c", f'ulimit -f {small}; exec "$@"', "-", *command], capture_output=True, text=True, check=False
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.strip().splitlines()[-1].startswith(f"segrl: {tmp_path / 'run'}: a file could not be written")
    assert "Traceback" not in full.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert [row["step"] for row in read_rows(tmp_path / "run" / "steps.jsonl")] == [1, 2]


def test_a_chat_template_that_the_sandbox_refuses_is_one_line(tmp_path):
    directory = tmp_path / "policy"
    save(directory, SMALL)
    (directory / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": None}))
    with pytest.raises(ModelError, match=r"the chat template of .* cannot be used: "):
        train(parse_recipe(sft(directory)), tmp_path / "run", say=lambda line: None, progress=False)


def test_a_length_that_cuts_the_image_is_refused_before_the_first_step(policy, tmp_path):
    with pytest.raises(RecipeError, match=r"trainer\.max_length: 16 is too short: the prompt of the first example has"):
        train(parse_recipe(sft(policy, max_length=16)), tmp_path / "run", say=lambda line: None, progress=False)


def test_a_group_size_that_does_not_divide_names_the_recipes_keys(policy, tmp_path):
    with pytest.raises(RecipeError, match=r"per_device_train_batch_size: 2.*num_generations: 3.*must be a multiple of"):
        train(parse_recipe(grpo(policy, num_generations=3)), tmp_path / "run", say=lambda line: None, progress=False)


def test_a_checkpoint_damaged_without_a_change_of_size_is_not_used(policy, tmp_path):
    """The run goes on from the one before it, says so, and ends with the weights of an undisturbed run."""
    recipe = parse_recipe(sft(policy, max_steps=2, save_steps=1, bf16=False, learning_rate=1e-3))
    run, said = tmp_path / "run", []
    model = train(recipe, run, say=said.append, progress=False).model_dir / "model.safetensors"
    whole = model.read_bytes()
    model.unlink()
    (run / "finished.json").unlink()
    weights = run / "checkpoints" / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000] + bytes(1000))
    train(recipe, run, say=said.append, progress=False)
    assert any("checkpoint-2 is damaged (the contents of model.safetensors have changed)" in line for line in said)
    assert "going on from step 1 of 2" in said
    assert (run / "checkpoints" / "damaged-checkpoint-2").is_dir()
    assert model.read_bytes() == whole
