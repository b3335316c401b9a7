"""The shipped recipes: they load, their options are real, and their numbers agree with each other."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from segrl import answers, datasets
from segrl.errors import RecipeError
from segrl.training.options import adapters, build_config
from segrl.training.recipe import Stage, load_recipe, load_stages, parse_recipe

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

FOLDER = Path(__file__).parents[2] / "recipes"
STAGES = [
    pytest.param(path.stem, stage, id=f"{path.stem}-{stage.name}".rstrip("-"))
    for path in sorted(FOLDER.glob("*.yaml"))
    for stage in load_stages(path)
]
COMPLETIONS = {  # a rollout's, on one process
    "seg_r1": 96,
    "seg_r1_pre_rl": 96,
    "seg_r1_rl": 96,
    "seg_r1_sod": 96,
    "sam_r1": 128,
    "vision_reasoner": 128,
    "no_target": 128,
    "star_lora": 256,
    "star_select": 1024,
    "one_gpu_24gb": 32,
    "one_gpu_80gb": 64,
    "turns_lora": 64,
    "turns_full": 16,
}


ABLATIONS = (FOLDER.parent / "docs" / "ablations.md").read_text(encoding="utf-8")


ABLATED = {
    "sam_r1": {"rewards.iou_tiers.tiers", "trainer.loss_type", "trainer.epsilon_high", "trainer.beta"}
    | {"dataset.sample.n"},
    "seg_r1_rl": {"rewards.iou", "rewards.s_measure", "policy.path"},
}


@pytest.mark.parametrize(("recipe", "section"), [("sam_r1", 1), ("seg_r1_rl", 2)])
def test_every_documented_ablation_changes_its_recipe(tmp_path: Path, recipe: str, section: int):
    rows = [line for line in ABLATIONS.split("\n## ")[section].splitlines() if line.startswith("|")]
    found = [shlex.split(quoted) for row in rows for quoted in re.findall(r"`(.*?)`", row) if "=" in quoted]
    assert len(found) >= 5
    assert {override.split("=")[0] for overrides in found for override in overrides} == ABLATED[recipe]
    cpu = "trainer.use_cpu=true"
    base = load_recipe(FOLDER / f"{recipe}.yaml", [cpu])
    for overrides in found:
        changed = load_recipe(FOLDER / f"{recipe}.yaml", [cpu, *overrides])
        assert changed != base, overrides
        config = build_config(changed, tmp_path)
        for key, value in (override.split("=") for override in overrides):
            if key.startswith("trainer."):
                assert str(getattr(config, key.removeprefix("trainer."))) == value


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_shipped_recipe_is_sound(tmp_path: Path, name: str, stage: Stage):
    recipe = stage.recipe
    said: list[str] = []
    trainer = {**recipe.trainer, "use_cpu": True}
    sharding = trainer.pop("deepspeed", None)  # without it: DeepSpeed is installed where there are GPUs
    assert sharding is None or (FOLDER.parent / sharding).is_file()
    config = build_config(recipe.model_copy(update={"trainer": trainer}), tmp_path, say=said.append)
    assert recipe.answer_format is None or recipe.answer_format in answers.names()
    assert recipe.dataset.name in datasets.NAMES
    if recipe.method == "grpo" and name in COMPLETIONS:
        assert config.generation_batch_size == COMPLETIONS[name]
        assert config.generation_batch_size % config.num_generations == 0
        assert config.epsilon_high is None or config.num_iterations > 1, "no clip acts on a ratio of 1"
        assert not config.use_bias_correction_kl or config.beta == 0
        assert not config.use_vllm


@pytest.mark.parametrize("name", ["seg_r1_pre_rl", "seg_r1_rl", "seg_r1_sod"])
def test_a_stage_alone_says_what_it_says_among_the_four(name: str):
    stages = {f"seg_r1_{stage.name}": stage.recipe for stage in load_stages(FOLDER / "seg_r1.yaml")}
    alone, among = load_recipe(FOLDER / f"{name}.yaml"), stages[name]
    for key in ("method", "answer_format", "segmenter", "dataset", "rewards", "trainer", "seed"):
        assert getattr(alone, key) == getattr(among, key), key
    keep = {"path"}
    assert alone.policy.model_dump(exclude=keep) == among.policy.model_dump(exclude=keep)


def test_cold_start_alone_and_among_the_four():
    alone, among = load_recipe(FOLDER / "seg_r1_cold_start.yaml"), load_stages(FOLDER / "seg_r1.yaml")[0].recipe
    assert (alone.policy, alone.trainer, alone.dataset) == (among.policy, among.trainer, among.dataset)


def test_sft_reads_warmup_as_a_share(tmp_path: Path):
    recipe = load_recipe(FOLDER / "seg_r1_cold_start.yaml", ["trainer.use_cpu=true"])
    assert build_config(recipe, tmp_path).get_warmup_steps(90) == 9


def test_star_is_what_its_code_is(tmp_path: Path):
    """r 64 with alpha 64, 16 queries × 16 completions of squashed pictures, no KL; then 8 best and 8 worst of 64."""
    first, second = (
        load_recipe(FOLDER / f"{name}.yaml", ["trainer.use_cpu=true"]) for name in ("star_lora", "star_select")
    )
    for recipe in (first, second):
        assert (recipe.peft["r"], recipe.peft["lora_alpha"]) == (64, 64)
        assert (recipe.policy.input_wh, recipe.policy.frame) == ((840, 840), "relative_1000")
        assert recipe.rewards["format_fields"] == 1.0
    assert first.rewards["matching_box_point"]["tiers"] == [[0.5, 2], [0.7, 3], [0.8, 4]]
    assert second.rewards["matching"]["tiers"][0] == [0.3, 1]  # the reward that its training script names
    config, wide = (build_config(recipe, tmp_path) for recipe in (first, second))
    assert (config.generation_batch_size // config.num_generations, config.num_generations) == (16, 16)
    assert (config.beta, config.num_iterations, wide.num_generations) == (0.0, 1, 64)
    assert first.select is None
    assert (second.select.best, second.select.worst) == (8, 8)


def test_adapters_of_the_recipes():
    lora = adapters(load_recipe(FOLDER / "star_lora.yaml"))
    assert (lora["peft_config"].r, lora["peft_config"].exclude_modules) == (64, ".*visual.*")
    assert "quantization_config" not in lora
    assert adapters(load_recipe(FOLDER / "sam_r1.yaml")) == {}


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantization_without_its_library_says_what_to_install():
    with pytest.raises(RecipeError, match="pip install bitsandbytes"):
        adapters(load_recipe(FOLDER / "one_gpu_24gb.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [("peft.rank=3", "did you mean peft.r"), ("peft.layers_to_transform=[1]", "peft: ")],
)
def test_wrong_adapters(override: str, message: str):
    with pytest.raises(RecipeError, match=message):
        adapters(load_recipe(FOLDER / "star_lora.yaml", [override]))


def test_quantized_weights_without_adapters_are_refused():
    with pytest.raises(RecipeError, match="add a peft section"):
        load_recipe(FOLDER / "one_gpu_24gb.yaml", ["peft=null"])


def test_a_frozen_vision_tower_goes_without_adapters():
    with pytest.raises(RecipeError, match=r"peft\.exclude_modules say where"):
        load_recipe(FOLDER / "one_gpu_24gb.yaml", ["policy.freeze_vision_tower=true"])


def test_the_formats_instruction_as_system_prompt():
    values = {"method": "sft", "dataset": "tiny", "policy": {"path": "x", "system": "answer_format"}}
    assert parse_recipe({**values, "answer_format": "seg-r1"}).policy.system == answers.get("seg-r1").system
    assert parse_recipe({**values, "answer_format": "sam-r1"}).policy.system is None
    with pytest.raises(RecipeError, match="needs an answer_format"):
        parse_recipe(values)


def test_data_sets_joined():
    sets = [{"name": "tiny", "n": 3, "seed": 0}, {"name": "tiny", "n": 2, "seed": 1}]
    joined = datasets.load("joined", sets=sets)
    assert [example.id.split("/")[0] for example in joined] == ["0-tiny"] * 3 + ["1-tiny"] * 2
    assert joined[-1].query == datasets.load(**sets[1])[1].query
    assert len(joined[1:4]) == 3


def test_each_stage_has_its_own_rewards():
    stages = load_stages(FOLDER / "seg_r1.yaml", ["stages.rl.rewards.iou=0.5"])
    assert [stage.recipe.rewards.get("iou") for stage in stages] == [None, 0.7, 0.5, 0.7]
