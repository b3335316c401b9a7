from __future__ import annotations

import pytest

from segrl import answers
from segrl.answers.seg_r1 import SegR1
from segrl.errors import RecipeError, SegrlError
from segrl.training.recipe import load_recipe, parse_recipe

GRPO = {
    "method": "grpo",
    "policy": "tiny",
    "segmenter": "grabcut",
    "dataset": {"name": "tiny", "n": 5, "seed": 1},
    "rewards": {"iou": 1.0},
}


def test_short_forms_and_defaults(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "method: grpo\npolicy: tiny\nsegmenter: grabcut\ndataset: {name: tiny, n: 5, seed: 1}\n"
        "rewards: {iou: 0.7, iou_tiers: {weight: 1, tiers: [[0.5, 1]]}}\ntrainer: {learning_rate: 5e-5}\n"
    )
    recipe = load_recipe(path)
    assert recipe.policy.path == "tiny"
    assert recipe.segmenter is not None
    assert (recipe.segmenter.name, recipe.segmenter.options) == ("grabcut", {})
    assert recipe.dataset.options == {"n": 5, "seed": 1}
    assert recipe.trainer["learning_rate"] == 5e-5  # a number, though YAML 1.1 reads a text
    assert [term.weight for term in recipe.terms()] == [0.7, 1.0]
    assert parse_recipe(recipe.as_dict()) == recipe


def test_overrides_are_yaml_and_reach_into_short_forms(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("method: sft\npolicy: tiny\ndataset: tiny\n")
    overrides = ["policy.input_wh=[64, 32]", "dataset.n=7", "trainer.learning_rate=1e-4", "trainer.bf16=true", "seed=3"]
    recipe = load_recipe(path, overrides)
    assert (recipe.policy.path, recipe.policy.input_wh) == ("tiny", (64, 32))
    assert recipe.dataset.options == {"n": 7}
    assert recipe.trainer == {"learning_rate": 1e-4, "bf16": True}
    assert recipe.seed == 3


@pytest.mark.parametrize(("value", "samples"), [(False, 0), (True, 8), ({"samples": 3}, 3), ({"margin": 0.2}, 8)])
def test_the_reward_check_is_on_or_off_or_of_a_size(value, samples):
    recipe = parse_recipe({**GRPO, "reward_check": value})
    assert recipe.reward_check.samples == samples
    assert parse_recipe(recipe.as_dict()) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "looks like"),
        ("=3", "looks like"),
        ("a..b=3", "looks like"),
        ("seed.x=3", "is a value"),
        ("seed=[", "no valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path, override, message):
    path = tmp_path / "r.yaml"
    path.write_text("method: sft\npolicy: tiny\ndataset: tiny\nseed: 1\n")
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [override])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewrads": {}}, "did you mean 'rewards'"),
        ({"policy": {"path": "x", "frme": "resized"}}, "did you mean 'policy.frame'"),
        ({"log": {"rollouts": {"evry": 3}}}, "did you mean 'log.rollouts.every'"),
        ({"control": {"shuffle": True}}, "did you mean 'control.shuffle_rewards'"),
        ({"method": "ppo"}, "method"),
        ({"seed": -1}, "seed"),
        ({"policy": {}}, "policy.path is missing"),
        ({"rewards": {}}, "rewards is empty"),
        ({"rewards": {"iuo": 1}}, "did you mean 'iou'"),
        ({"segmenter": None}, "needs a segmenter"),
        ({"method": "sft"}, "learns from gold answers"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(change, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe({**GRPO, **change}, source="r.yaml")
    assert str(caught.value).startswith("r.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot read"), ("a: [", "no valid YAML"), ("- 1", "must hold a mapping")]
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


class Shouted(SegR1):
    """An answer format of one's own."""

    name = "shouted"
    system = "Shout."

    def read(self, body, frame):
        return super().read(body.lower(), frame)


shouted = Shouted()


@pytest.mark.parametrize("path", ["test_recipe.Shouted", "test_recipe.shouted"])
def test_an_answer_format_of_ones_own_by_import_path(path):
    policy = {"path": "tiny", "system": "answer_format"}
    recipe = parse_recipe({**GRPO, "policy": policy, "answer_format": {"python": path}})
    assert (recipe.answer_format, recipe.policy.system) == (f"python:{path}", "Shout.")
    assert parse_recipe(recipe.as_dict()) == recipe
    assert answers.parse("<BBOX>[1,2,3,4]</BBOX>", recipe.answer_format).prompts[0].box_xyxy == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.Format", "cannot import"),
        ("Format", "cannot import"),
        ("segrl.answers.Format", "cannot import"),
        ("segrl.answers.names", "is not a segrl.answers.AnswerFormat"),
        ("segrl.answers.AnswerFormat", "abstract"),
    ],
)
def test_wrong_answer_formats_of_ones_own(path, message):
    with pytest.raises(SegrlError, match=message) as caught:
        answers.get(f"python:{path}")
    assert "\n" not in str(caught.value)


ALIASES = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000 + "x",
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + ALIASES,
        "a: &a [*a]",
    ],
    ids=["brackets", "braces", "dashes", "an anchor bomb", "an alias of itself"],
)
def test_a_file_that_would_take_the_machine_down_is_one_line(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="is no valid YAML: ") as caught:
        load_recipe(path)
    assert len(str(caught.value)) < 300 + len(str(path))
    path.write_text("method: sft\npolicy: tiny\ndataset: tiny\n")
    with pytest.raises(RecipeError, match="the value is no valid YAML"):
        load_recipe(path, [f"about={text}"])


def test_anchors_are_what_they_are_elsewhere(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "method: sft\npolicy: tiny\nsegmenter: box\n"
        "dataset: &d {name: tiny, n: 5}\nevaluation: {dataset: {<<: *d, n: 2}}\n"
    )
    recipe = load_recipe(path)
    assert recipe.evaluation is not None
    assert (recipe.dataset.options, recipe.evaluation.dataset.options) == ({"n": 5}, {"n": 2})
