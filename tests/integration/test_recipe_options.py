"""The trainer section against TRL's own configuration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from segrl.errors import RecipeError
from segrl.training.options import build_config, prepare_vllm
from segrl.training.recipe import parse_recipe

BEST = {"method": "sft", "policy": "tiny", "dataset": "tiny", "segmenter": "box"}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed


def config(tmp_path, method: str = "grpo", said: list[str] | None = None, **trainer):
    values = {"method": method, "policy": "tiny", "dataset": "tiny", "trainer": {"use_cpu": True, **trainer}, "seed": 7}
    if method == "grpo":
        values |= {"segmenter": "box", "rewards": {"iou": 0.7, "format": 0.3}}
    say = (lambda line: None) if said is None else said.append
    return build_config(parse_recipe(values), tmp_path, say=say)


def test_ours_beside_trls_own(tmp_path):
    built = config(tmp_path, loss_type="grpo", beta=0.04)
    assert (built.loss_type, built.beta, built.seed, built.reward_weights) == ("grpo", 0.04, 7, [0.7, 0.3])
    assert (built.shuffle_dataset, built.num_train_epochs, built.logging_steps) == (False, 1, 1)
    assert built.save_total_limit is None  # the recipe's own `checkpoints` says what is kept
    assert config(tmp_path, "sft").max_length is None
    assert config(tmp_path, "sft", max_length=99).max_length == 99


@pytest.mark.parametrize("trainer", [{"bf16": True}, {"bf16": False}])
def test_bfloat16_as_the_recipe_says(tmp_path, trainer):
    assert config(tmp_path, **trainer).bf16 is trainer["bf16"]


def test_without_a_gpu_it_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    said: list[str] = []
    values = {"method": "sft", "policy": "tiny", "dataset": "tiny"}
    assert build_config(parse_recipe(values), tmp_path, say=said.append).use_cpu
    assert said[0] == "no GPU found: training on the CPU (use_cpu: true)"
    assert sum("GPU" in line for line in said) == 1


@pytest.mark.parametrize(
    ("method", "trainer", "message"),
    [
        ("grpo", {"learning_rat": 1}, "did you mean trainer.learning_rate"),
        ("sft", {"num_generations": 4}, "unknown key trainer.num_generations"),
        ("grpo", {"reward_weights": [1]}, "trainer.reward_weights is what the recipe's `rewards` says"),
        ("grpo", {"output_dir": "x"}, "trainer.output_dir is the run's directory"),
        ("grpo", {"seed": 1}, "the recipe's own `seed`"),
        ("grpo", {"shuffle_dataset": True}, "must stay False"),
        ("grpo", {"eval_strategy": "steps"}, "eval_strategy"),
        ("grpo", {"save_strategy": "epoch"}, "save_strategy must be steps"),
        ("grpo", {"save_only_model": True}, "cannot be resumed"),
        ("grpo", {"save_total_limit": 1}, "`checkpoints` says"),
        ("grpo", {"save_steps": 0.1}, "whole number"),
        ("grpo", {"logging_steps": 3, "save_steps": 10}, "multiple of logging_steps"),
        ("grpo", {"num_iterations": 2, "save_steps": 5}, "half-used rollout.*save_steps: 6 would do"),
        ("grpo", {"steps_per_generation": 8, "gradient_accumulation_steps": 2, "save_steps": 2}, "save_steps: 4"),
        ("grpo", {"num_generations": 7}, "generation_batch_size"),
        ("grpo", {"use_vllm": True}, "set trainer.vllm_importance_sampling_correction too"),
    ],
)
def test_what_is_refused(tmp_path, method, trainer, message):
    with pytest.raises(RecipeError, match=message) as caught:
        config(tmp_path, method, **trainer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "trainer",
    [
        {"num_iterations": 2, "save_steps": 6},
        {"steps_per_generation": 8, "gradient_accumulation_steps": 2, "save_steps": 4},
        {"gradient_accumulation_steps": 4, "save_steps": 1},
    ],
)
def test_whole_rollouts_per_checkpoint_are_accepted(tmp_path, trainer):
    built = config(tmp_path, **trainer)
    assert {name: getattr(built, name) for name in trainer} == trainer


def test_vllm_answers_for_the_policy_that_is_trained(tmp_path):
    """Merged into 4-bit weights, adapters are others."""
    values = {"method": "grpo", "policy": "tiny", "dataset": "tiny", "segmenter": "box", "rewards": {"iou": 1.0}}
    values |= {"quantization": {"load_in_4bit": True}, "peft": {"r": 4}}
    trainer = {"use_vllm": True, "vllm_importance_sampling_correction": True}
    with pytest.raises(RecipeError, match="goes without quantization: TRL merges the adapters"):
        build_config(parse_recipe(values | {"trainer": trainer}), tmp_path)


def test_vllm_needs_one_size_of_pictures_and_writes_no_picture_tokens():
    config = SimpleNamespace(use_vllm=True, generation_kwargs={"bad_words": ["x"], "seed": 3})
    processor = SimpleNamespace(image_token="<|image_pad|>", video_token="<|video_pad|>")
    with pytest.raises(RecipeError, match=r"set policy\.input_wh"):
        prepare_vllm(config, None, processor)
    prepare_vllm(config, (840, 840), processor)
    assert config.generation_kwargs == {"bad_words": ["x", "<|image_pad|>", "<|video_pad|>"], "seed": 3}
    without = SimpleNamespace(use_vllm=False, generation_kwargs=None)
    prepare_vllm(without, None, processor)
    assert without.generation_kwargs is None


def test_best_needs_answers_where_checkpoints_fall(tmp_path):
    with pytest.raises(RecipeError, match=r"set evaluation\.every"):
        parse_recipe({**BEST, "checkpoints": {"best": True}})
    with pytest.raises(RecipeError, match=r"checkpoints\.last"):
        parse_recipe({**BEST, "checkpoints": {"last": 1}})
    held_out = {"dataset": {"n": 3, "seed": 0}, "every": 15}
    values = {**BEST, "evaluation": held_out, "checkpoints": {"best": True}}
    for save_steps, fits in ((5, True), (10, False)):
        recipe = parse_recipe({**values, "trainer": {"use_cpu": True, "save_steps": save_steps}})
        if fits:
            assert build_config(recipe, tmp_path).save_total_limit is None
        else:
            with pytest.raises(RecipeError, match="must be a multiple"):
                build_config(recipe, tmp_path)
