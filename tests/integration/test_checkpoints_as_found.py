"""Checkpoints as people have them on disk: each is read, or refused in one line that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segrl import policies
from segrl.errors import ModelError
from segrl.memory_estimate.dimensions import from_config
from segrl.policies.checkpoint import base_of
from segrl.policies.loading import load_processor
from segrl.policies.openai_policy import read_reply
from segrl.policies.prompt_preview import shown_prompt
from segrl.tiny import resolve_policy

TINY = Path(resolve_policy("tiny"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["Qwen2_5_VLImageProcessor", "Qwen3VLImageProcessor", "Qwen3VLImageProcessorFast"])
def test_processors_named_by_other_versions_of_transformers(copy: Path, name: str) -> None:
    """CASES 20."""
    path = copy / "processor_config.json"
    path.write_text(path.read_text().replace('"Qwen2VLImageProcessor"', f'"{name}"'))
    ours, theirs = load_processor(str(TINY)), load_processor(str(copy))
    assert type(theirs) is type(ours)
    assert theirs.image_processor.size == ours.image_processor.size
    assert theirs.tokenizer("the red ring")["input_ids"] == ours.tokenizer("the red ring")["input_ids"]


def test_a_processor_that_nobody_knows_is_refused(copy: Path) -> None:
    path = copy / "processor_config.json"
    path.write_text(path.read_text().replace('"Qwen2VLImageProcessor"', '"NoSuchImageProcessor"'))
    with pytest.raises(ModelError, match="no processor that can be loaded"):
        load_processor(str(copy))


def test_an_adapter_whose_base_is_elsewhere(tmp_path: Path) -> None:
    """CASES 21."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/somebody/qwen"}')
    with pytest.raises(
        ModelError, match=r"was trained on /home/somebody/qwen, which is not here: .*policy\.base"
    ) as error:
        policies.load(tmp_path)
    assert "\n" not in str(error.value)
    assert base_of(str(tmp_path), str(TINY)) == str(TINY)
    with pytest.raises(ModelError, match="does not fit its base model"):
        policies.load(tmp_path, base=str(TINY))
    assert shown_prompt(str(tmp_path), "the cup", base=str(TINY)) == shown_prompt("tiny", "the cup")
    with pytest.raises(ModelError, match="is not an adapter"):
        policies.load(TINY, base=str(TINY))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_files_that_git_lfs_did_not_fetch(copy: Path, name: str) -> None:
    """CASES 22."""
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ModelError, match=rf"{name} is a pointer of Git LFS.*git lfs pull"):
        policies.load(copy)


@pytest.mark.parametrize(
    ("shard", "advice"),
    [
        ("model_world_size_8_rank_0.pt", "verl.model_merger"),
        ("global_step100/zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_to_fp32"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "accelerate merge-weights"),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_shards_of_another_trainer(tmp_path: Path, shard: str, advice: str, with_config: bool) -> None:
    path = tmp_path / shard
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    if with_config:
        shutil.copy(TINY / "config.json", tmp_path)
    with pytest.raises(ModelError, match=f"must be merged first: .*{advice}"):
        policies.load(tmp_path)


def test_a_flat_configuration_of_qwen2_5_vl() -> None:
    """CASES 23."""
    text = {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
    text |= {"intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": True}
    vision = {"hidden_size": 1280, "depth": 32, "intermediate_size": 3420, "patch_size": 14, "spatial_merge_size": 2}
    flat = {"model_type": "qwen2_5_vl", **text, "vision_config": vision}
    nested = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision, "tie_word_embeddings": True}
    assert from_config(flat) == from_config(nested)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_answer_that_a_server_took_for_reasoning(field: str) -> None:
    """CASES 24."""
    message = {"content": None, field: "It is left. <bbox>[1,2,3,4]</bbox>"}
    reply = {"choices": [{"message": message, "finish_reason": "stop"}]}
    assert read_reply(reply).text == "It is left. <bbox>[1,2,3,4]</bbox>"
    reply["choices"][0]["finish_reason"] = "length"
    assert read_reply(reply).text == "<think>It is left. <bbox>[1,2,3,4]</bbox></think>"


def test_the_prompt_of_a_published_checkpoint_needs_no_hub() -> None:
    """CASES 36."""
    shown = shown_prompt("geshang/Seg-R1-7B", "the dog")
    assert shown.text.endswith("Identify and segment the dog")
    assert (shown.answer_format, shown.input_wh) == ("seg-r1", (768, 768))


def test_a_model_directory_runs_no_code_unless_asked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(copy)
    settings = json.loads((copy / "segrl.json").read_text())
    (copy / "segrl.json").write_text(json.dumps({**settings, "answer_format": "python:evil.Format"}))
    for use in (policies.load, lambda path: shown_prompt(str(path), "the dog")):
        with pytest.raises(ModelError, match=r"names code, python:evil\.Format.*trust_remote_code=True"):
            use(copy)
    assert policies.load(copy, answer_format="seg-r1").answer_format == "seg-r1"
    assert policies.load(copy, trust_remote_code=True).answer_format == "python:evil.Format"
