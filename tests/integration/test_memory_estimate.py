"""segrl plan: sizes against transformers, and what it proposes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hub_configs import CONFIGS, SAVED_BY_4_49, transformers_config
from hypothesis import given
from hypothesis import strategies as st
from small import SHAPE, save_policy
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.errors import RecipeError
from segrl.memory_estimate import altered, dimensions, needs, setting_of, settings_of, smallest_changes
from segrl.memory_estimate.estimate import GB, TRL, adapter_parameters, fits, peak, vllm_sequences
from segrl.memory_estimate.suggestions import CHANGES, _all, _sharding
from segrl.policies import PUBLISHED as TABLE
from segrl.tiny.model import build
from segrl.training.recipe import load_recipe, load_stages

FOLDER = Path(__file__).parents[2] / "recipes"
# The policy of photographs.yaml is a directory that a script makes first.
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "photographs")


def without_weights(config: object):
    """The model in transformers, on the meta device."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


PUBLISHED = {  # what the hub says of the checkpoints' sizes
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen2.5-VL-32B-Instruct": 33_452_718_336,
    "Qwen/Qwen2.5-VL-72B-Instruct": 73_410_777_344,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen3-VL-32B-Instruct": 33_357_390_064,
}


@pytest.mark.parametrize("name", dimensions.POLICIES)
def test_policies_have_as_many_parameters_as_in_transformers(name: str, tmp_path: Path):
    """The table, the configuration of the hub read by us, and the same read and built by transformers."""
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    built = without_weights(AutoConfig.from_pretrained(tmp_path))
    model = dimensions.POLICIES[name]
    assert model == dimensions.policy_model(str(tmp_path))
    assert model.parameters == count(built) == PUBLISHED[name]
    assert model.vision_parameters == count(built.get_encoder(modality="image"))
    assert without_weights(transformers_config(model)).num_parameters() == built.num_parameters()
    kept = {layer.name.removesuffix(".weight") for layer in model.linears()}
    assert kept <= {name for name, _ in built.named_modules()}


def test_configurations_that_leave_out_defaults_are_read():
    assert dimensions.from_config(SAVED_BY_4_49) == dimensions.POLICIES["Qwen/Qwen2.5-VL-7B-Instruct"]
    lacking = {key: value for key, value in SAVED_BY_4_49.items() if key != "hidden_size"}
    with pytest.raises(RecipeError, match="the configuration of x does not say its hidden_size"):
        dimensions.from_config(lacking, "x")


def test_published_checkpoints_are_as_large_as_what_they_began_from(tmp_path: Path):
    for row in (row for row in TABLE if row.bases):
        assert len(row.names) == len(row.bases)
        for name, base in zip(row.names, row.bases, strict=True):
            assert dimensions.policy_model(name).parameters == PUBLISHED[base]
    thinking = dimensions.policy_model("Qwen/Qwen3-VL-4B-Thinking")
    assert thinking.parameters == PUBLISHED["Qwen/Qwen3-VL-4B-Instruct"]
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-8B-Instruct"}')
    assert dimensions.policy_model(str(tmp_path)).parameters == PUBLISHED["Qwen/Qwen3-VL-8B-Instruct"]


@pytest.mark.parametrize("name", dimensions.SEGMENTERS)
def test_segmenters_have_as_many_parameters_as_in_transformers(name: str):
    from transformers import Sam2Config, Sam2Model

    sam = dimensions.SEGMENTERS[name]
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
    assert dimensions.policy_model(str(save_policy(tmp_path / "policy"))).parameters == count(build(SHAPE))
    assert dimensions.policy_model("tiny").parameters < 10e6
    with pytest.raises(RecipeError, match=r"knows Qwen2-VL, Qwen2\.5-VL and Qwen3-VL"):
        dimensions.from_config({"model_type": "llama"}, "x")
    for read in (dimensions.policy_model, dimensions.segmenter_model):
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

    policy = dimensions.policy_model(str(save_policy(tmp_path / "policy")))
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
        if after.changed and altered(setting, after):
            harmless = [change for change in CHANGES if change.harm == 0]
            for changes in combinations(harmless, min(4, len(harmless))):
                assert not any(fits(one) for one in _all(setting, changes))


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
    offload = json.loads((FOLDER / "zero3_offload.json").read_text())["zero_optimization"]
    assert (offload["stage"], offload["offload_optimizer"]["device"]) == (3, "cpu")
    changed = [after.changed for after in _sharding(setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 8, 80))]
    assert (f"trainer.deepspeed=recipes/{path.name}",) in changed


HEADERS = {
    path.stem: [
        line.removeprefix("#   ") for line in path.read_text().splitlines() if line.startswith("#   segrl plan")
    ]
    for path in RECIPES
}
PAPERS = [
    *("sam_r1", "sam_r1_sft", "seg_r1", "seg_r1_cold_start", "seg_r1_pre_rl", "seg_r1_rl", "seg_r1_sod"),
    *("vision_reasoner", "no_target", "star_lora", "star_select", "one_gpu_24gb", "one_gpu_80gb"),
    *("turns_cold_start", "turns_lora", "turns_full"),
]


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_recipe_names_a_set_up_under_which_it_fits(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(FOLDER.parent)
    (line,) = HEADERS[name]
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert (done.exit_code, "does not fit" in done.stdout) == (0, False), done.output
    assert f"recipes/{name}.yaml" in line


def test_advice_comes_in_the_order_of_harm():
    """As written, full fine-tuning on eight cards needs what leaves it as it is; on one card that cannot be."""
    for name in ("sam_r1", "seg_r1_rl", "vision_reasoner", "no_target"):
        setting = setting_of(load_recipe(FOLDER / f"{name}.yaml"), 8, 80)
        after = smallest_changes(setting)
        assert not fits(setting)
        assert after is not None
        assert (after.zero, altered(setting, after)) == (3, [])
    one = setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 1, 80)
    after = smallest_changes(one)
    assert after is not None
    assert altered(one, after) == ["adapters in place of all weights", "weights of lower precision"]
    assert [change.harm for change in CHANGES] == sorted(change.harm for change in CHANGES)


def test_vllm_must_have_room_for_its_weights_and_one_sequence():
    """7B in bfloat16 take 16.6 GB; a token's keys and values 2 × 28 × 4 × 128 numbers of two bytes."""
    on = ["trainer.use_vllm=true", "trainer.vllm_gpu_memory_utilization=0.25"]
    setting = setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml", on), 1, 80)
    room = 0.25 * 80e9 - 2 * P7 - 1e9
    assert vllm_sequences(setting) == int(room / (TOKENS * 2 * 28 * 4 * 128 * 2)) > 0
    tight = dataclasses.replace(setting, vllm_share=0.2)
    assert vllm_sequences(tight) == 0
    assert not fits(tight)
    after = smallest_changes(tight)
    assert after is not None
    assert after.changed == ("trainer.vllm_gpu_memory_utilization=0.3",)
    assert vllm_sequences(dataclasses.replace(tight, vllm_gpus=2)) > 0
    assert vllm_sequences(setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml"), 1, 80)) is None


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
    assert (done.exit_code, done.stderr) == (2, "segrl: --image takes WIDTHxHEIGHT, for instance 640x480, not big\n")


def test_what_is_proposed_can_be_said_to_the_recipe():
    setting = setting_of(load_recipe(FOLDER / "sam_r1.yaml"), 1, 24)
    after = smallest_changes(setting)
    assert after is not None
    overrides = [word for said in after.changed for word in shlex.split(said)]
    again = setting_of(load_recipe(FOLDER / "sam_r1.yaml", overrides), 1, 24)
    assert dataclasses.replace(again, changed=after.changed) == after
    assert again.per_device * again.accumulation == setting.per_device * setting.accumulation == 128


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
    assert 8 * less["prefill"] == more["prefill"]
    assert less["rollout cache"] == more["rollout cache"]
    assert "mask" not in more


@pytest.mark.parametrize(
    "override",
    ["trainer.max_completion_length=8192", "trainer.model_init_kwargs.attn_implementation=flash_attention_2"],
)
def test_prompts_are_counted_anew_where_they_are_read_anew(override: str):
    """Attention over very long completions costs more than the prompt; FlashAttention takes no such mask."""
    setting = setting_of(load_recipe(FOLDER / "one_gpu_80gb.yaml", [override]), 1, 80)
    assert setting.rows == (8, setting.prompt + setting.completion)


def test_turns_take_a_picture_each():
    """Of a conversation of three answers: two pictures more, and every turn reads what was before it."""
    path = FOLDER / "turns_lora.yaml"
    one, three = (setting_of(load_recipe(path, [f"turns={turns}"]), 1, 80) for turns in ("null", "{max: 3}"))
    assert not three.shared_prefix
    less, more = ({part.part: part.nbytes for part in needs(setting)} for setting in (one, three))
    assert more["activations"] > 1.3 * less["activations"]
    assert more["rollout cache"] == less["rollout cache"]
    length = three.prompt + three.completion
    assert more["prefill"] == pytest.approx(8 * length / three.prompt * less["prefill"])
    gold = setting_of(load_recipe(FOLDER / "turns_cold_start.yaml"), 1, 80)
    assert gold.completion == 3 * 200 + 2 * (24 * 24 + 150)
    after = smallest_changes(dataclasses.replace(three, memory=30 * GB))
    assert after is None or after.completion == three.completion
