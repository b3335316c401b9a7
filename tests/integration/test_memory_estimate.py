"""segrl plan: sizes against transformers, and what it proposes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SHAPE, save_policy
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.errors import RecipeError
from segrl.memory_estimate import models, needs, setting_of, settings_of, smallest_changes
from segrl.memory_estimate.changes import CHANGES, _all, _sharding
from segrl.memory_estimate.needs import GB, TRL, adapter_parameters, fits, peak
from segrl.tiny.model import build
from segrl.training.recipe import load_recipe
from segrl.training.stages import load_stages

FOLDER = Path(__file__).parents[2] / "recipes"
# The policy of photographs.yaml is a directory that a script makes first.
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "photographs")


def without_weights(model: models.PolicyModel):
    """The model in transformers, on the meta device."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(models.transformers_config(model))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


PUBLISHED = {  # what the hub says of the checkpoints' sizes
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}


@pytest.mark.parametrize("name", models.POLICIES)
def test_policies_have_as_many_parameters_as_in_transformers(name: str):
    model, built = models.POLICIES[name], without_weights(models.POLICIES[name])
    assert model.parameters == count(built) == PUBLISHED[name]
    assert model.vision_parameters == count(built.get_encoder(modality="image"))


@pytest.mark.parametrize("name", models.SEGMENTERS)
def test_segmenters_have_as_many_parameters_as_in_transformers(name: str):
    from transformers import Sam2Config, Sam2Model

    sam = models.SEGMENTERS[name]
    widths = [sam.embed * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": sam.embed,
        "num_attention_heads": sam.heads[0],
        "blocks_per_stage": list(sam.blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": list(sam.heads),
        "window_size_per_stage": list(sam.windows),
        "global_attention_blocks": list(sam.global_blocks),
        "window_positional_embedding_background_size": list(sam.background),
    }
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    with torch.device("meta"):
        model = Sam2Model(Sam2Config(vision_config=vision))
    assert sam.parameters == count(model)


def test_a_directory_is_read_from_its_configuration(tmp_path: Path):
    assert models.policy_model(str(save_policy(tmp_path / "policy"))).parameters == count(build(SHAPE))
    assert models.policy_model("tiny").parameters < 10e6
    with pytest.raises(RecipeError, match=r"knows Qwen2\.5-VL and Qwen3-VL"):
        models.from_config({"model_type": "llama"}, "x")
    for read in (models.policy_model, models.segmenter_model):
        with pytest.raises(RecipeError, match=r"does not know the .* who/knows: it knows"):
            read("who/knows")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "target_modules": "all-linear", "exclude_modules": ".*visual.*"},
        {"r": 2, "target_modules": "all-linear"},
        {"r": 8, "target_modules": ["q_proj", "down_proj"]},
        {"r": 3, "target_modules": r".*visual\.blocks.*(qkv|linear_fc1)"},
    ],
)
def test_adapters_are_as_large_as_pefts(tmp_path: Path, options: dict):
    from peft import LoraConfig, get_peft_model

    policy = models.policy_model(str(save_policy(tmp_path / "policy")))
    model = get_peft_model(build(SHAPE), LoraConfig(task_type="CAUSAL_LM", **options))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_parameters(policy, options) == trained


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_defaults_are_trls(tmp_path: Path):
    from trl import GRPOConfig

    config = GRPOConfig(str(tmp_path), use_cpu=True)
    assert {name: getattr(config, name) for name in TRL} == TRL


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("gpus", "memory"), [(1, 24), (8, 80)])
def test_every_shipped_recipe_is_planned_and_proposals_are_smallest(path: Path, gpus: int, memory: float):
    for setting in settings_of(load_stages(path), gpus, memory):
        parts = needs(setting)
        assert {"weights", "optimizer", "gradients", "activations"} <= {part.part for part in parts}
        after = smallest_changes(setting)
        if after is None:
            continue
        assert fits(after)
        for fewer in combinations(CHANGES, max(0, len(after.changed) - 1)):
            if len(after.changed) > 0:
                assert not any(fits(one) for one in _all(setting, fewer))


def test_a_stage_that_goes_on_is_as_large_as_the_one_before():
    sizes = [one.policy.parameters for one in settings_of(load_stages(FOLDER / "seg_r1.yaml"), 8, 80)]
    assert sizes == [PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"]] * 4


P7 = PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"]
TOKENS = 300 + 30 * 30 + 512  # text, 840 pixels in squares of 28, completion
BY_HAND = {  # sam_r1 on eight GPUs: float32 under bfloat16 autocast, 4 completions at a time, 128 a rollout
    "weights": 4 * P7,
    "optimizer": 8 * P7,
    "reference": 4 * P7,
    "gradients": 4 * P7 + 4 * P7,  # and DDP's buckets
    "autocast": 2 * P7,
    "segmenter": 4 * 216_924_865,
    "logits": 4 * 512 * 152_064 * (2 + 4 + 4),  # bfloat16, float32, and its gradient
    "rollout cache": 128 * TOKENS * 2 * 28 * 4 * 128 * 2,  # keys and values, layers, heads, width, bfloat16
    "embeddings": 16 * 4_194_304 * 4,
}


def test_parts_equal_a_computation_by_hand():
    parts = {part.part: part.nbytes for part in needs(setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 8, 80))}
    assert {name: parts[name] for name in BY_HAND} == BY_HAND
    sharded = setting_of(load_recipe(FOLDER / "sam_r1.yaml", [f"trainer.deepspeed={FOLDER / 'zero3.json'}"]), 8, 80)
    assert {part.part: part.nbytes for part in needs(sharded)}["optimizer"] == P7
    quantized = setting_of(load_recipe(FOLDER / "one_gpu_24gb.yaml"), 1, 24)
    small = {part.part: part.nbytes for part in needs(quantized)}
    linear, all_of_it = quantized.policy.linear_parameters, PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"]
    assert small["weights"] == pytest.approx(0.52 * linear + 2 * (all_of_it - linear))
    # rank × (inputs + outputs) over q, k, v, o and the three of the MLP, in 36 layers
    rows = 4 * 2048 + 2 * (2048 + 256) + 3 * (2048 + 11008)
    assert small["adapters"] == small["gradients"] == 2 * 32 * 36 * rows  # TRL brings these adapters to bfloat16
    assert small["optimizer"] == 4 * 32 * 36 * rows
    large = {part.part: part.nbytes for part in needs(setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml"), 1, 80))}
    assert large["weights"] == 2 * P7
    assert large["optimizer"] == 2 * large["gradients"] == 2 * large["adapters"]
    assert "reference" not in small


@pytest.mark.parametrize("stage", [2, 3])
def test_the_sharding_that_is_proposed_is_there(stage: int):
    path = FOLDER / f"zero{stage}.json"
    assert json.loads(path.read_text())["zero_optimization"]["stage"] == stage
    changed = [after.changed for after in _sharding(setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 8, 80))]
    assert (f"trainer.deepspeed=recipes/{path.name}",) in changed


def test_what_each_shipped_one_gpu_recipe_is_for():
    assert fits(setting_of(load_recipe(FOLDER / "one_gpu_24gb.yaml"), 1, 24))
    assert fits(setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml"), 1, 80))
    full = setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 1, 80)
    assert sum(p.nbytes for p in needs(full) if p.part in ("weights", "optimizer", "gradients")) == 16 * (
        full.policy.parameters
    )
    assert not fits(full)


@given(memory=st.floats(10, 200), gpus=st.sampled_from([1, 2, 8]), per_device=st.sampled_from([1, 2, 4]))
def test_less_of_anything_needs_less(memory: float, gpus: int, per_device: int):
    overrides = [f"trainer.per_device_train_batch_size={per_device}"]
    setting = setting_of(load_recipe(FOLDER / "sam_r1.yaml", overrides), gpus, memory)
    most = peak(needs(setting))[1]
    for change in CHANGES:
        for after in change.apply(setting):
            assert peak(needs(after))[1] <= most, change.name
    assert fits(dataclasses.replace(setting, memory=most))
    assert not fits(dataclasses.replace(setting, memory=most - 1))


def test_the_command_says_what_to_change():
    done = CliRunner().invoke(app, ["plan", str(FOLDER / "sam_r1.yaml"), "--memory", "80"])
    assert done.exit_code == 1
    assert "does not fit 80 GB" in done.stdout
    assert "after:" in done.stdout
    assert "not compared with measured GPU memory" in done.stdout
    done = CliRunner().invoke(app, ["plan", str(FOLDER / "one_gpu_24gb.yaml"), "--memory", "24"])
    assert (done.exit_code, "fits 24 GB" in done.stdout) == (0, True)
    done = CliRunner().invoke(app, ["plan", str(FOLDER / "seg_r1.yaml"), "--gpus", "8"])
    assert [f"stage {name}" in done.stdout for name in ("cold_start", "pre_rl", "rl", "sod")] == [True] * 4
    done = CliRunner().invoke(app, ["plan", str(FOLDER / "sam_r1.yaml"), "--image", "big"])
    assert (done.exit_code, done.stderr) == (2, "segrl: --image is written 640x480, not big\n")


def test_what_is_proposed_can_be_said_to_the_recipe():
    import shlex

    setting = setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 1, 24)
    after = smallest_changes(setting)
    assert after is not None
    overrides = [word for said in after.changed for word in shlex.split(said)]
    again = setting_of(load_recipe(FOLDER / "sam_r1.yaml", overrides), 1, 24)
    assert dataclasses.replace(again, changed=after.changed) == after
    assert again.per_device * again.accumulation == setting.per_device * setting.accumulation == 128


def test_planning_loads_no_torch():
    code = "import sys, segrl.memory_estimate, segrl.cli.plan; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    assert GB == 10**9


def test_a_prompt_is_counted_once_per_group():
    path, short = FOLDER / "one_gpu_80gb.yaml", "trainer.max_completion_length=150"
    shared = setting_of(load_recipe(path, [short]), 1, 80)
    plain = setting_of(load_recipe(path, [short, "training.shared_prefix=false"]), 1, 80)
    prompt = shared.prompt
    assert plain.rows == (8, prompt + 150)
    assert shared.rows == (1, prompt + 8 * 150)
    two_groups, half_a_group = (dataclasses.replace(shared, per_device=n) for n in (16, 4))
    assert two_groups.rows == (2, prompt + 8 * 150)
    assert half_a_group.rows == (1, prompt + 4 * 150)
    less, more = ({part.part: part.nbytes for part in needs(setting)} for setting in (shared, plain))
    assert less["activations"] < 0.6 * more["activations"]  # the picture was encoded once in either
    assert less["mask"] == 5 * shared.rows[1] ** 2
    assert less["logits"] == more["logits"]
    assert "mask" not in more


@pytest.mark.parametrize(
    "override",
    ["trainer.max_completion_length=8192", "trainer.model_init_kwargs.attn_implementation=flash_attention_2"],
)
def test_prompts_are_counted_anew_where_they_are_read_anew(override: str):
    """Attention over very long completions costs more than the prompt; FlashAttention takes no such mask."""
    setting = setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml", [override]), 1, 80)
    assert setting.rows == (8, setting.prompt + setting.completion)
