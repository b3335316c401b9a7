"""Adapters over 4-bit weights, where bitsandbytes is installed (CI leaves it out, as the overlay `ci` says)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ci_overlay import ci
from safetensors.torch import load_file
from small import SHAPE, save_data, save_policy
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig
from typer.testing import CliRunner

from segrl import datasets, policies
from segrl.cli.app import app
from segrl.errors import ModelError
from segrl.files import read_rows
from segrl.training import load_recipe, parse_recipe, train

has_avx512bf16 = pytest.importorskip("bitsandbytes.functional", reason="pip install '.[qlora]'").has_avx512bf16
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

WIDE = replace(SHAPE, width=64, mlp=128, vision_width=64, vision_mlp=64)
RECIPE = Path(__file__).parents[2] / "recipes" / "one_gpu_24gb.yaml"


def characters(rollout) -> float:
    """A reward that differs between random completions."""
    return float(sum(map(ord, rollout.text)) % 11)


def test_one_gpu_24gb_trains_adapters_over_4_bit_weights(tmp_path: Path):
    policy = save_policy(tmp_path / "hub", settings=None)
    save_data(tmp_path / "data")
    recipe, removed = ci(load_recipe(RECIPE, ["trainer.learning_rate=0.01"]), {"hub": policy}, tmp_path / "data")
    assert removed == ["quantization"]
    rewards = {"length": {"weight": 1.0, "python": "test_qlora.characters"}}
    values = {"rewards": rewards, "reward_check": False, "quantization": load_recipe(RECIPE).quantization}
    result = train(parse_recipe(recipe.as_dict() | values), tmp_path / "run", say=lambda line: None, progress=False)
    assert all(row["grad_norm"] > 0 for row in read_rows(result.steps_path))
    kept = load_file(result.model_dir / "adapter_model.safetensors")
    assert all("lora_" in key and "visual" not in key for key in kept)
    assert any(tensor.abs().max() > 0 for key, tensor in kept.items() if "lora_B" in key)
    arguments = ["export", str(tmp_path / "run"), "--merge", "--out", str(tmp_path / "merged")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    merged, before = (AutoModelForImageTextToText.from_pretrained(path) for path in (tmp_path / "merged", policy))
    changed = [name for name, one in merged.named_parameters() if not torch.equal(one, before.get_parameter(name))]
    assert changed
    assert not any("visual" in name for name in changed)


def in_4_bits(policy: Path, place: Path) -> Path:
    """The policy's weights as bitsandbytes saves them."""
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForImageTextToText.from_pretrained(policy, quantization_config=nf4, dtype=torch.float32)
    shutil.copytree(policy, place)
    (place / "model.safetensors").unlink()
    model.save_pretrained(place)
    return place


def test_4_bit_layers_that_this_processor_cannot_use_are_named(tmp_path: Path):
    small = in_4_bits(save_policy(tmp_path / "policy"), tmp_path / "small")
    if not has_avx512bf16():
        pytest.skip("bitsandbytes packs nothing on this processor")
    with pytest.raises(ModelError, match=r"4-bit layer with 32 inputs \(.*\), and bitsandbytes on this"):
        policies.load(small, dtype="float32")


def test_a_checkpoint_saved_in_4_bits_segments_and_is_evaluated(tmp_path: Path):
    """As the hub has them: nf4 weights with their quantization in config.json; a processor beside them."""
    small = in_4_bits(save_policy(tmp_path / "policy", shape=WIDE), tmp_path / "small")
    assert any(tensor.dtype == torch.uint8 for tensor in load_file(small / "model.safetensors").values())
    loaded = policies.load(small, dtype="float32")
    assert {type(layer).__name__ for layer in loaded.model.model.language_model.modules()} > {"Linear4bit"}
    data = ["--dataset", "tiny", "n=2", "seed=1"]
    (tmp_path / "photos").mkdir()
    datasets.load("tiny", n=1, seed=1)[0].image.save(tmp_path / "photos" / "a.png")
    photos = [str(tmp_path / "photos"), "--query", "the red circle"]
    for command, words in (("segment", photos), ("eval", data)):
        parts = ["--policy", str(small), "--segmenter", "box", "--out", str(tmp_path / command)]
        done = CliRunner().invoke(app, [command, *words, *parts, "--max-new-tokens", "8"])
        assert done.exit_code == 0, done.output
