"""Both methods end to end in two steps, with a policy small enough for one core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from segrl import loading
from segrl.answers.seg_r1 import SegR1
from segrl.errors import ModelError, RecipeError
from segrl.files import read_rows
from segrl.masks import from_rle
from segrl.policies import PolicySettings, read_settings, write_settings
from segrl.tiny.model import Shape, save
from segrl.training import parse_recipe, train

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

SMALL = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)
DATA = {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape", "none", "count"]}
TRAINER = {"max_steps": 2, "gradient_checkpointing": False, "logging_steps": 1}


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("policy")
    save(directory, SMALL)
    write_settings(directory, PolicySettings("seg-r1", "resized", (112, 112)))
    return str(directory)


def sft(policy: str, **trainer) -> dict:
    options = {**TRAINER, "per_device_train_batch_size": 4, "learning_rate": 1e-3, **trainer}
    return {"method": "sft", "policy": policy, "dataset": DATA, "trainer": options}


def grpo(policy: str, **trainer) -> dict:
    options = {**TRAINER, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6, **trainer}
    return {
        "method": "grpo",
        "policy": policy,
        "segmenter": "box",
        "dataset": {**DATA, "kinds": ["colour_shape", "none"]},
        "rewards": {"iou": 0.7, "format": 0.3, "no_target": 1.0},
        "trainer": options,
        "log": {"rollouts": {"every": 1, "groups": 1}},
    }


def quiet(line: str) -> None:
    """Nothing on the screen."""


class Pointing(SegR1):
    """An answer format of one's own, asked for in other words."""

    name = "pointing"

    def prompt(self, query: str) -> str:
        return f"Point at {query}"


def test_an_answer_format_of_ones_own_trains_and_is_loaded_with_the_policy(policy, tmp_path):
    values = {**grpo(policy), "answer_format": {"python": "test_train_smoke.Pointing"}}
    result = train(parse_recipe(values), tmp_path / "run", say=quiet, progress=False)
    assert read_settings(result.model_dir).answer_format == "python:test_train_smoke.Pointing"
    options = {"segmenter": "box", "device": "cpu"}
    with pytest.raises(ModelError, match="names code, python:test_train_smoke"):
        loading.load(str(result.model_dir), **options)
    for said in ({"answer_format": "python:test_train_smoke.Pointing"}, {"trust_remote_code": True}):
        loaded = loading.load(str(result.model_dir), **options, **said)
        assert loaded.text_to_masks.answer_format.prompt("the cup") == "Point at the cup"


def test_sft_learns_the_completion_only_and_saves_a_policy(policy, tmp_path):
    said = []
    result = train(parse_recipe(sft(policy)), tmp_path / "run", say=said.append, progress=False)
    rows = read_rows(result.steps_path)
    assert [row["step"] for row in rows] == [1, 2]
    assert all({"loss", "grad_norm", "seconds", "mean_token_accuracy"} <= row.keys() for row in rows)
    assert any("use_cpu: true" in line for line in said)
    assert read_settings(result.model_dir) == PolicySettings("seg-r1", "resized", (112, 112))
    assert not list(result.model_dir.glob("optimizer*"))

    from segrl import policies
    from segrl.datasets import load

    example = load("tiny", n=1, seed=1)[0]
    answers = policies.load(str(result.model_dir)).generate([example.image], ["Identify"], max_new_tokens=2)
    assert answers[0][0].n_tokens <= 2


@pytest.mark.parametrize("recipe", [sft, grpo])
def test_a_frozen_vision_tower_stays_as_it_is(policy, tmp_path, recipe):
    values = {**recipe(policy, weight_decay=0.1, learning_rate=0.1), "policy": {"path": policy}}
    values["policy"]["freeze_vision_tower"] = True
    result = train(parse_recipe(values), tmp_path / "run", say=quiet, progress=False)
    before, after = (load_file(Path(path) / "model.safetensors") for path in (policy, result.model_dir))
    changed = {name for name in before if not torch.equal(before[name], after[name].to(before[name].dtype))}
    assert changed
    assert not [name for name in changed if "visual" in name]


def test_grpo_logs_every_term_and_rollouts_with_advantages(policy, tmp_path):
    result = train(parse_recipe(grpo(policy)), tmp_path / "run", say=quiet, progress=False)
    rows = read_rows(result.steps_path)
    assert [row["step"] for row in rows] == [1, 2]
    for key in ("reward", "rewards/iou/mean", "rewards/format/mean", "giou", "status/ok", "grad_norm", "entropy"):
        assert key in rows[0]
    assert len(rows[0]["completions_sha"]) == 64
    assert rows[0]["completions_sha"] != rows[1]["completions_sha"]

    groups = read_rows(result.rollouts_path)
    assert [(group["step"], group["group"]) for group in groups] == [(1, 0), (2, 0)]
    for group in groups:
        assert len(group["completions"]) == 2
        assert sum(c["advantage"] for c in group["completions"]) == pytest.approx(0, abs=1e-5)
        for completion in group["completions"]:
            assert list(from_rle(completion["mask"]).shape) == group["image_hw"]
            assert completion["terms"].keys() == {"iou", "format", "no_target"}


def test_a_run_is_claimed_finished_and_refused(policy, tmp_path):
    recipe = parse_recipe(grpo(policy))
    first = train(recipe, tmp_path / "run", say=quiet, progress=False)
    steps = first.steps_path.read_text()
    said: list[str] = []
    assert train(recipe, tmp_path / "run", say=said.append, progress=False) == first
    assert "finished already" in said[0]
    assert first.steps_path.read_text() == steps
    assert parse_recipe(yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())) == recipe
    start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
    assert start["versions"]["trl"]
    other = parse_recipe(grpo(policy, learning_rate=0.5))
    with pytest.raises(RecipeError, match=r"trainer.learning_rate is null there and 0.5 here"):
        train(other, tmp_path / "run", say=quiet, progress=False)


def test_several_updates_per_rollout_and_shuffled_rewards(policy, tmp_path):
    values = grpo(policy, num_iterations=2, steps_per_generation=1, max_steps=4, save_steps=2, beta=0.01)
    values["control"] = {"shuffle_rewards": True}
    result = train(parse_recipe(values), tmp_path / "run", say=quiet, progress=False)
    shas = [row["completions_sha"] for row in read_rows(result.steps_path)]
    assert shas[0] == shas[1] != shas[2] == shas[3]
    assert [group["step"] for group in read_rows(result.rollouts_path)] == [1, 3]


def test_a_policy_without_a_processor(policy, tmp_path):
    for path in Path(policy).iterdir():
        if path.name in ("config.json", "model.safetensors", "segrl.json", "generation_config.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=str(tmp_path)) as caught:
        train(parse_recipe(sft(str(tmp_path))), tmp_path / "run", say=quiet, progress=False)
    assert "\n" not in str(caught.value)


def held_out(policy: str, **trainer) -> dict:
    evaluation = {"dataset": {"n": 5, "seed": 7}, "every": 2, "examples": 3, "batch_size": 2, "max_new_tokens": 6}
    return {**grpo(policy, max_steps=4, save_steps=4, **trainer), "evaluation": evaluation}


def test_evaluation_during_training_changes_nothing_else(policy, tmp_path):
    plain = train(parse_recipe({**held_out(policy), "evaluation": None}), tmp_path / "plain", say=quiet, progress=False)
    evaluated = train(parse_recipe(held_out(policy)), tmp_path / "evaluated", say=quiet, progress=False)
    rows, plain_rows = read_rows(evaluated.steps_path), read_rows(plain.steps_path)
    for row, true in zip(rows, plain_rows, strict=True):
        for key in ("completions_sha", "loss", "grad_norm", "reward"):
            assert row[key] == true[key]
    weights = [result.model_dir / "model.safetensors" for result in (plain, evaluated)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert [row["step"] for row in rows if "held_out/giou" in row] == [2, 4]
    assert all(row["seconds/evaluation"] > 0 for row in rows if "held_out/giou" in row)

    from segrl.evaluation import compare_runs, read_jsonl

    during = [tmp_path / "evaluated" / "evaluation" / "held_out" / f"step_{step}" for step in (2, 4)]
    records = read_jsonl(during[1] / "records.jsonl")
    assert [record.id for record in records] == ["tiny-7-0", "tiny-7-1", "tiny-7-3"]
    compared = compare_runs(*during)
    assert compared["metrics"]["giou"]["b"] == rows[-1]["held_out/giou"]
    assert compared["settings"] == {"policy.step": "2 → 4"}


def test_every_phase_is_timed_and_trackers_get_it(policy, tmp_path):
    values = held_out(policy, report_to="tensorboard")
    result = train(parse_recipe(values), tmp_path / "run", say=quiet, progress=False)
    for row in read_rows(result.steps_path):
        spent = [row[f"seconds/{phase}"] for phase in ("rollout", "reward", "update")]
        assert all(seconds > 0 for seconds in spent)
        assert sum(spent) <= row["seconds"]
        assert row["tokens_per_second"] > 0

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in (tmp_path / "run" / "tensorboard").rglob("events*")}
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/reward", "train/seconds/rollout", "train/held_out/giou"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/held_out/giou")] == [2, 4]


def test_pictures_of_the_logged_groups_are_kept(policy, tmp_path):
    result = train(parse_recipe(grpo(policy)), tmp_path / "run", say=quiet, progress=False)

    from segrl.training.checkpoints import Pictures

    for group in read_rows(result.rollouts_path):
        assert Pictures(tmp_path / "run" / "pictures").open(group["image_id"]).size == (112, 112)
        assert all("outside" in completion for completion in group["completions"])


def test_evaluation_must_fall_on_a_logged_step(policy, tmp_path):
    values = held_out(policy, logging_steps=4)
    with pytest.raises(RecipeError, match=r"multiple of trainer.logging_steps \(4\)"):
        train(parse_recipe(values), tmp_path / "run", say=quiet, progress=False)
