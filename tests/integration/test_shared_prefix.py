"""A prompt read once per group trains as one read for every completion: the same numbers, for every family.

Completions differ in length, prompts too (so that some are padded), and a micro-batch holds several groups.
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import save_family
from two_processes import replay

from segrl.files import read_rows
from segrl.training import parse_recipe, train
from segrl.training.checkpoints import RunDir
from segrl.training.packing import PADDING, block_mask, visible
from segrl.training.parts import Parts
from segrl.training.shared_prefix import THREE_AXES, SharedPrefixTrainer
from segrl.training.trainer import build

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

SHARED = (*THREE_AXES, "internvl")
CLOSE = 1e-5
"""What the order of float32 sums explains; log-probabilities here are of the size of 1 to 10."""
IMAGES = ("pixel_values", "image_grid_thw", "num_images", "num_tiles", "mm_token_type_ids")
LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "exclude_modules": ".*(visual|vision).*"}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Also where it gains nothing: tiny prompts are as fast read anew."""
    monkeypatch.setattr("segrl.training.packing.GAIN", math.inf)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # it warns of its `rollout_func`


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("shared")
    for family in (*SHARED, "qwen3_5", "fast_vlm"):
        save_family(family, place / family, sharp=True)
    return place


def recipe_of(policy: Path, **trainer: Any) -> Any:
    more = {key: trainer.pop(key) for key in ("peft", "training", "quantization") if key in trainer}
    frozen = trainer.pop("policy.freeze_vision_tower", False)
    policy_section = {"path": str(policy), "input_wh": [112, 112], "frame": "relative_1000"}
    values = {
        "method": "grpo",
        "policy": {**policy_section, "freeze_vision_tower": frozen},
        "answer_format": "seg-r1",
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape", "pair"]},
        "rewards": {"iou": 1.0, "format": 0.5},
        "reward_check": False,
        "trainer": {
            "max_steps": 5,
            "save_steps": 5,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "max_completion_length": 64,
            "learning_rate": 0.05,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
        },
    }
    values["trainer"] |= trainer
    return parse_recipe(values | more)


class Passes:
    """A trainer with one rollout, of which either way of reading it can be asked."""

    def __init__(self, policy: Path, run: Path, **trainer: Any) -> None:
        self.lines: list[str] = []
        recipe = recipe_of(policy, **trainer)
        self.trainer: SharedPrefixTrainer = build(
            Parts(recipe), RunDir(run), rollout_func=replay, say=self.lines.append
        ).trainer
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self.inputs = self.trainer._prepare_inputs(next(iter(self.trainer.get_train_dataloader())))
        self.say = self.trainer._say

    def logps(self, *, shared: bool, chunk: int, model: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies, `(M, C)` each."""
        self.trainer._say = self.say if shared else None
        ids, mask = (
            torch.cat([self.inputs[f"prompt_{name}"], self.inputs[f"completion_{name}"]], 1) for name in ("ids", "mask")
        )
        images = {key: self.inputs.get(key) for key in IMAGES}
        with torch.no_grad():
            logps, entropies, _ = self.trainer._get_per_token_logps_and_entropies(
                model or self.trainer.model, ids, mask, self.inputs["completion_ids"].size(1), chunk, True, **images
            )
        return logps, entropies

    def gradient(self, *, shared: bool) -> torch.Tensor:
        """Of the loss, all parameters in one vector."""
        self.trainer._say = self.say if shared else None
        self.trainer.model.zero_grad()
        self.trainer.compute_loss(self.trainer.model, self.inputs).backward()
        return torch.cat([p.grad.flatten() for p in self.trainer.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", SHARED)
def test_log_probabilities_entropies_and_gradients_are_equal(place: Path, tmp_path: Path, family: str):
    passes = Passes(place / family, tmp_path)
    prompts, completions = (passes.inputs[f"{part}_mask"].sum(1) for part in ("prompt", "completion"))
    assert len(set(prompts.tolist())) > 1
    assert len(set(completions.tolist())) > 2
    for chunk in (8, 4, 3):  # two groups, one, and groups that are cut
        plain, shared = (passes.logps(shared=shared, chunk=chunk) for shared in (False, True))
        assert plain[0].abs().max() > 3
        torch.testing.assert_close(shared, plain, rtol=0, atol=CLOSE)
    plain, shared = (passes.gradient(shared=shared) for shared in (False, True))
    assert (shared - plain).norm() < CLOSE * plain.norm()
    assert ["once per group" in line for line in passes.lines] == [True]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_differs_as_bfloat16_does(place: Path, tmp_path: Path, family: str, attention: str):
    """No further from float32 than the plain way in bfloat16 is."""
    exact = Passes(place / family, tmp_path / "exact").logps(shared=False, chunk=8)[0]
    passes = Passes(place / family, tmp_path / "half", bf16=True, model_init_kwargs={"attn_implementation": attention})
    plain, shared = (passes.logps(shared=shared, chunk=8)[0] for shared in (False, True))
    assert (shared - exact).norm() < 1.5 * (plain - exact).norm()


TRAINED = {
    "lora": {"peft": LORA, "learning_rate": 0.5},
    "checkpointing": {"gradient_checkpointing": True},
    "both": {"peft": LORA, "learning_rate": 0.5, "gradient_checkpointing": True},
    "reference": {"beta": 0.1, "num_iterations": 2},
    "sequences": {"importance_sampling_level": "sequence", "num_iterations": 2},
    "high_entropy": {"top_entropy_quantile": 0.5, "loss_type": "dapo"},
    "accumulated": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "loss_type": "grpo"},
    "cut": {"mask_truncated_completions": True, "beta": 0.05},
}
FAMILIES = (*SHARED, "fast_vlm")
OTHERS = [("qwen3_vl", name) for name in TRAINED if name not in ("lora", "checkpointing", "both")]
SHORT = [(family, name, 2) for family, name in [*((family, "both") for family in FAMILIES), *OTHERS]]
LONG = [(family, name, 6) for family, name in [*product(FAMILIES, ("lora", "checkpointing", "both")), *OTHERS]]


@pytest.mark.parametrize(
    ("family", "name", "steps"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)]
)
def test_training_is_equal(place: Path, tmp_path: Path, family: str, name: str, steps: int):
    options = {**TRAINED[name], "max_steps": steps, "save_steps": steps}
    # Batch normalisation counts repeats, so what trains it goes the plain way.
    options["policy.freeze_vision_tower"] = family == "fast_vlm" and "peft" not in options
    rows, weights = [], []
    for shared in (True, False):
        recipe = recipe_of(place / family, **options, training={"shared_prefix": shared})
        lines: list[str] = []
        result = train(recipe, tmp_path / str(shared), rollout_func=replay, progress=False, say=lines.append)
        assert any("once per group" in line for line in lines) == shared
        rows.append(read_rows(result.steps_path))
        weights.append(load_file(next(result.model_dir.glob("*model.safetensors"))))
    keys = {"loss", "reward", "reward_std", "grad_norm", "kl"}
    if name != "accumulated":  # the mean over micro-batches of each one's mean: other rows are together now
        keys.add("entropy")
    assert len(rows[0]) == len(rows[1]) == steps
    for shared_row, plain_row in zip(*rows, strict=True):
        plain_row = {key: pytest.approx(plain_row[key], rel=CLOSE, abs=CLOSE) for key in keys & plain_row.keys()}
        assert {key: shared_row[key] for key in plain_row} == plain_row
    assert max(row["grad_norm"] for row in rows[0]) > 0.01
    for key, plain in weights[1].items():
        torch.testing.assert_close(weights[0][key], plain, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    ("family", "more", "rows"),
    [
        ("qwen2_5_vl", {"peft": LORA, "gradient_checkpointing": True}, 2),
        ("internvl", {}, 2),
        ("qwen3_5", {}, 2),  # a family whose update cannot share
        ("fast_vlm", {}, 8),
        ("fast_vlm", {"policy.freeze_vision_tower": True}, 2),
        ("qwen3_vl", {"training": {"shared_prefix": False}}, 8),
    ],
)
def test_rollouts_read_each_prompt_once(place: Path, tmp_path: Path, family: str, more: Any, rows: int):
    ids, read = [], []
    for shared in (True, False):
        recipe = recipe_of(
            place / family, **{"max_completion_length": 6, "training": {"shared_prefix": shared}, **more}
        )
        trainer = build(Parts(recipe), RunDir(tmp_path / str(shared)), say=lambda line: None).trainer
        trainer._bare(trainer.model).model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: read.append(len(kwargs["inputs_embeds"])), with_kwargs=True
        )
        torch.manual_seed(0)
        trainer.model.train()
        ids.append(trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))["completion_ids"])
    assert torch.equal(*ids)
    assert read[0] == rows


def test_adapters_over_4_bit_weights(place: Path, tmp_path: Path):
    pytest.importorskip("bitsandbytes", reason="pip install '.[qlora]'")
    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
    passes = Passes(place / "qwen2_5_vl", tmp_path, peft=LORA, quantization=four_bits)
    plain, shared = (passes.logps(shared=shared, chunk=8) for shared in (False, True))
    assert plain[0].abs().max() > 3
    torch.testing.assert_close(shared, plain, rtol=0, atol=CLOSE)
    plain, shared = (passes.gradient(shared=shared) for shared in (False, True))
    assert (shared - plain).norm() < 0.01 * plain.norm()  # the adapters are in bfloat16
    assert any("once per group" in line for line in passes.lines)


def test_micro_batches_hold_whole_groups_in_the_order_of_trls_shuffle(place: Path, tmp_path: Path):
    passes = Passes(place / "qwen3_vl", tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    batches = passes.trainer._buffered_inputs
    assert len(batches) == 4
    for batch in batches:
        prompts = {(tuple(ids.tolist()), float(batch["pixel_values"].sum())) for ids in batch["prompt_ids"]}
        assert len(prompts) == 1
        assert batch["image_grid_thw"].shape == (4, 3)
    plain, shared = (passes.logps(shared=shared, chunk=4) for shared in (False, True))
    torch.testing.assert_close(shared, plain, rtol=0, atol=CLOSE)


def test_a_batch_that_cuts_groups_is_told_what_would_not(place: Path, tmp_path: Path):
    passes = Passes(place / "qwen3_vl", tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=8)
    assert passes.lines == [
        "trainer.per_device_train_batch_size (2) cuts groups of 4, whose prompts are then read more than once: "
        "4 with gradient_accumulation_steps: 4 would hold whole groups"
    ]


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("qwen3_5", {}, "qwen3_5 is not among"),
        ("fast_vlm", {}, "batch normalisation"),
        ("qwen3_vl", {"torch_compile": True}, "torch_compile"),
    ],
)
def test_what_cannot_goes_the_plain_way_and_one_line_says_so(place, tmp_path, family, options, why):
    if "torch_compile" in options:
        lines: list[str] = []
        build(Parts(recipe_of(place / family, **options)), RunDir(tmp_path), say=lines.append)
    else:
        passes = Passes(place / family, tmp_path, **options)
        passes.gradient(shared=True)
        lines = passes.lines
    assert len(lines) == 1
    assert why in lines[0]
    assert lines[0].startswith("shared_prefix: ")


def test_batch_normalisation_that_is_not_trained_allows_it(place: Path, tmp_path: Path):
    passes = Passes(place / "fast_vlm", tmp_path)
    passes.trainer.model.get_encoder(modality="image").eval()
    plain, shared = (passes.gradient(shared=shared) for shared in (False, True))
    assert (shared - plain).norm() < CLOSE * plain.norm()
    assert any("once per group" in line for line in passes.lines)


def test_short_prompts_and_large_masks_go_the_plain_way(place: Path, tmp_path: Path, monkeypatch):
    passes = Passes(place / "qwen3_vl", tmp_path)
    plain = passes.logps(shared=False, chunk=8)
    monkeypatch.setattr("segrl.training.shared_prefix.MASK_SHARE", 1e-9)
    assert torch.equal(passes.logps(shared=True, chunk=8)[0], plain[0])
    monkeypatch.setattr("segrl.training.packing.GAIN", 0.1)
    assert torch.equal(passes.logps(shared=True, chunk=8)[0], plain[0])
    assert ["mask" in line for line in passes.lines] == [True, False]
    assert "short" in passes.lines[1]


def test_switched_off_it_is_trls_own_trainer(place: Path, tmp_path: Path):
    passes = Passes(place / "qwen3_vl", tmp_path, training={"shared_prefix": False})
    assert passes.say is None
    assert passes.lines == []


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_the_blocks_of_flex_attention_say_what_the_mask_says():
    """Computed without a kernel, as a CPU can; the kernel itself needs CUDA."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(0)
    segments = torch.full((2, 300), PADDING)
    for row, ends in enumerate([(150, 210, 240, 300), (100, 130, 200, 260)]):
        for k, (start, end) in enumerate(zip((0, *ends), ends, strict=False)):
            segments[row, start:end] = k
    query, key, value = torch.randn(3, 2, 2, 300, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, visible(segments))
    blocks: Any = block_mask(segments)
    torch.testing.assert_close(flex_attention(query, key, value, block_mask=blocks), expected, rtol=1e-5, atol=1e-5)
    assert blocks.sparsity() > 0


def test_the_recipe_keeps_it(place: Path):
    assert json.loads(json.dumps(recipe_of(place / "qwen3_vl").as_dict()))["training"] == {"shared_prefix": True}
