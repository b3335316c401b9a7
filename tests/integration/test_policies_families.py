"""Every supported family as a policy: loaded from disk, each with its own coordinates; adapters, merged or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_families import BUILD, save_family

from segrl import policies
from segrl.errors import ModelError
from segrl.policies.frames import FAMILY_FRAMES
from segrl.types import RELATIVE_1000, Frame

# peft asks for an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PICTURES = [Image.new("RGB", size, (40 * i, 90, 30)) for i, size in enumerate([(120, 90), (60, 100), (120, 90)])]
QUERIES = ["the red circle", "the blue star", "the green ring"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {name: save_family(name, place / name) for name in BUILD}


@pytest.mark.parametrize("family", BUILD)
def test_a_family_is_loaded_from_disk_with_its_own_coordinates(checkpoints: dict[str, Path], family: str) -> None:
    policy = policies.load(str(checkpoints[family]))
    assert policy.model.config.model_type == family
    expected = Frame.resized(112, 84) if family == "qwen2_5_vl" else RELATIVE_1000
    assert policy.frame_for((120, 90)) == expected
    together = policy.generate(PICTURES, QUERIES, max_new_tokens=3, batch_size=3)
    alone = policy.generate(PICTURES, QUERIES, max_new_tokens=3)
    assert [row[0].text for row in together] == [row[0].text for row in alone]
    assert all(1 <= row[0].n_tokens <= 3 for row in alone)


@pytest.mark.parametrize("family", BUILD)
def test_a_family_reads_a_conversation_of_turns(checkpoints: dict[str, Path], family: str) -> None:
    """Two pictures of different sizes, and an answer between them; a batch reads what each alone reads."""
    policy = policies.load(str(checkpoints[family]))
    turn = policies.Exchange("<think>there</think> it", PICTURES[1], "area 10%")
    chats = [policies.Chat(PICTURES[0], QUERIES[0], (turn,)), policies.Chat(PICTURES[2], QUERIES[2])]
    together = policy.reply(chats, max_new_tokens=3, batch_size=2)
    alone = [policy.reply([chat], max_new_tokens=3)[0] for chat in chats]
    assert [row[0].text for row in together] == [row[0].text for row in alone]
    transcript = policy._transcript(chats[0])
    assert transcript.index(QUERIES[0]) < transcript.index("there") < transcript.index("area 10%")


def test_every_family_of_the_table_is_tested_here() -> None:
    served_only = {"molmo", "gemini"}  # transformers has no class for them
    assert {name.removesuffix("_moe") for name in FAMILY_FRAMES} - served_only == BUILD.keys()


@pytest.fixture(scope="module")
def adapter(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny Qwen2.5-VL with weights that change its answers; no processor beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    place = tmp_path_factory.mktemp("adapter")
    base = AutoModelForImageTextToText.from_pretrained(checkpoints["qwen2_5_vl"])
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    model.save_pretrained(place)
    return place


def answers(policy: policies.Policy) -> list[str]:
    return [row[0].text for row in policy.generate(PICTURES, QUERIES, max_new_tokens=8)]


def test_an_adapter_answers_alike_merged_or_not(checkpoints: dict[str, Path], adapter: Path) -> None:
    apart, merged = (policies.load(str(adapter), merge_adapter=merge) for merge in (False, True))
    assert answers(apart) == answers(merged) != answers(policies.load(str(checkpoints["qwen2_5_vl"])))
    names = [{name for name, _ in policy.model.named_parameters()} for policy in (apart, merged)]
    assert any("lora_A" in name for name in names[0])
    assert not any("lora_A" in name for name in names[1])
    assert apart.frame_for((120, 90)) == Frame.resized(112, 84)


def test_an_adapters_own_settings_and_those_of_the_model_below(
    checkpoints: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    base, copy = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(checkpoints["qwen2_5_vl"], base)
    shutil.copytree(adapter, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    policies.write_settings(base, policies.PolicySettings("sam-r1", "resized", (84, 84)))
    assert policies.load(str(copy)).answer_format == "sam-r1"
    policies.write_settings(copy, policies.PolicySettings("seg-r1"))
    own = policies.load(str(copy))
    assert (own.answer_format, own.frame_for((120, 90))) == ("seg-r1", Frame.resized(112, 84))


@pytest.mark.parametrize("fault", ["weights", "keys", "base", "nobody", "shape"])
def test_adapters_that_cannot_be_used(adapter: Path, tmp_path: Path, fault: str) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(adapter, copy)
    path, config = copy / "adapter_model.safetensors", json.loads((copy / "adapter_config.json").read_text())
    weights = load_file(path)
    if fault == "weights":
        path.write_bytes(b"\xff" * 64)
    elif fault == "keys":
        weights.pop(next(iter(weights)))
        save_file(weights, path)
    elif fault == "shape":
        save_file({key: value[:, :1].contiguous() for key, value in weights.items()}, path)
    else:
        below = {"base_model_name_or_path": str(tmp_path / "gone") if fault == "base" else None}
        (copy / "adapter_config.json").write_text(json.dumps(config | below))
    with pytest.raises(ModelError) as raised:
        policies.load(str(copy))
    hints = {
        "base": "which is not here: say where the model is with base",
        "nobody": "does not say",
        "keys": "lacks some of its weights",
    }
    assert hints.get(fault, "does not fit its base model") in str(raised.value)
    assert "\n" not in str(raised.value)
