"""Recipes of several stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from segrl.errors import RecipeError
from segrl.training.recipe import load_stages

SHARED = """
dataset: {name: folder, root: photos}
segmenter: box
stages:
  first: {method: sft, policy: tiny, dataset: {query: the cup}}
  second: {method: grpo, rewards: {iou: 1}}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_later_stages_start_from_the_one_before(tmp_path: Path):
    first, second = load_stages(write(tmp_path, SHARED), ["dataset.root=elsewhere", "stages.second.seed=3"])
    assert (first.name, first.recipe.policy.path, first.recipe.dataset.options) == (
        "first",
        "tiny",
        {"root": "elsewhere", "query": "the cup"},
    )
    assert second.recipe.seed == 3
    assert second.recipe.dataset.options == {"root": "elsewhere"}
    assert second.directory(tmp_path) == tmp_path / "second"
    assert second.resolved(tmp_path / "first" / "model").policy.path == str(tmp_path / "first" / "model")
    assert first.resolved(None).policy.path == "tiny"


def test_a_plain_recipe_is_one_stage_in_the_directory_itself(tmp_path: Path):
    (only,) = load_stages(write(tmp_path, "{method: sft, policy: tiny, dataset: tiny}"))
    assert only.directory(tmp_path) == tmp_path
    assert not only.follows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages: []", "mapping"),
        ("stages: {a: {method: sft, dataset: tiny}}", "policy is missing"),
        ("stages: {a: {method: sft, policy: tiny, dataset: tiny, sed: 1}}", "did you mean 'seed'"),
        ("{method: sft, dataset: tiny, stages: {a: {policy: tiny, peft: {r: 2}}, b: {seed: 2}}}", "leaves an adapter"),
    ],
)
def test_faults_name_the_stage(tmp_path: Path, text: str, words: str):
    with pytest.raises(RecipeError, match=words):
        load_stages(write(tmp_path, text))


def test_held_out_data_without_a_name_are_the_training_data_with_other_options(tmp_path: Path):
    data = "dataset: {name: folder, root: r, part: train}, evaluation: {dataset: {part: test}}"
    text = f"{{method: sft, policy: tiny, segmenter: box, {data}}}"
    (stage,) = load_stages(write(tmp_path, text))
    section = stage.recipe.evaluation
    assert section is not None
    assert (section.dataset.name, section.dataset.options) == ("folder", {"root": "r", "part": "test"})


def test_a_later_stage_says_how_its_policy_is_asked_without_naming_another(tmp_path: Path):
    shared = "policy: {input_wh: [8, 8]}, method: sft, dataset: tiny"
    stages = "{a: {policy: {path: tiny}}, b: {policy: {system: Point.}}, c: {policy: other}}"
    first, second, third = load_stages(write(tmp_path, f"{{{shared}, stages: {stages}}}"))
    assert (first.recipe.policy.path, first.recipe.policy.input_wh, first.follows) == ("tiny", (8, 8), False)
    assert (second.recipe.policy.system, second.recipe.policy.input_wh, second.follows) == ("Point.", (8, 8), True)
    assert second.resolved(tmp_path).policy.path == str(tmp_path)
    assert (third.recipe.policy.path, third.follows) == ("other", False)


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("trainer.max_steps=3", "stages.rl.trainer.max_steps"),
        ("method=sft", "stages.sft.method or stages.rl.method"),
        ("trainer.max_steps.more=3", "stages.rl.trainer.max_steps.more"),
    ],
)
def test_an_override_that_a_stage_would_ignore_is_refused(tmp_path, override, instead):
    path = tmp_path / "r.yaml"
    path.write_text(
        "dataset: tiny\nstages:\n"
        "  sft: {method: sft, policy: tiny}\n"
        "  rl: {method: grpo, segmenter: box, rewards: {iou: 1}, trainer: {max_steps: 9}}\n"
    )
    with pytest.raises(RecipeError, match=f"{override}: the stages set it themselves; say {instead}"):
        load_stages(path, [override])
    steps = [stage.recipe.trainer.get("max_steps") for stage in load_stages(path, ["stages.rl.trainer.max_steps=3"])]
    assert steps == [None, 3]
    rates = [stage.recipe.trainer["learning_rate"] for stage in load_stages(path, ["trainer.learning_rate=1e-5"])]
    assert rates == [1e-5, 1e-5]
