"""A recipe → what each part needs on one GPU, in bytes.

A step has phases: the rollout, the reward, the update. What is always there (weights, the optimizer's
moments, the reference, the segmenter) is added to the most that one phase takes on top.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segrl.memory_estimate.dimensions import Block, PolicyModel, SegmenterModel, policy_model, segmenter_model
from segrl.policies.checkpoint import base_of
from segrl.segmenters.loading import CACHE_BYTES
from segrl.tiny import resolve_policy
from segrl.training.packing import MASK_SHARE, Cost, mask_bytes
from segrl.training.recipe import Recipe, Stage

GB = 10**9
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
FOUR_BIT = 0.52
"""Bytes of a weight in 4 bits with its block's scale (nf4, double quantization)."""

TRL = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_generations": 8,
    "max_completion_length": 512,
    "beta": 0.0,
    "gradient_checkpointing": True,
    "bf16": True,
    "vllm_gpu_memory_utilization": 0.3,
    "vllm_tensor_parallel_size": 1,
}
"""Defaults of TRL 1.16 that count here."""

TEXT_TOKENS = 300
"""Tokens of the prompt besides the image: instruction and query."""
IMAGE_WH = (640, 480)
"""The size of a picture that the recipe does not squash: COCO's."""
GOLD_TOKENS = 200
"""Tokens of a gold answer in SFT."""
LOOK_TOKENS = 150
"""Tokens of the words beside the picture of a mask, of a conversation over turns (`training.turns.look_tokens`)."""
RESERVE = 1.5 * GB
"""What CUDA itself, its libraries and the gaps between tensors take."""
VLLM_OWN = 1.0 * GB
"""What vLLM takes of its share besides weights and cache: activations of a forward pass, CUDA graphs."""
SAM_ENCODE_BATCH, SAM_DECODE = 4, 1.0 * GB
"""Images encoded at once (`segmenters.sam`); 64 prompts decoded and brought to the image's size."""


@dataclass(frozen=True)
class Need:
    """One part: bytes on one GPU, the phase in which it is there ("always" or a phase's name), and what it counts."""

    part: str
    phase: str
    nbytes: float
    what: str


@dataclass(frozen=True)
class Setting:
    """What of a recipe decides how much memory it takes.

    weights: "float32", "bfloat16" or "4bit". adapters: LoraConfig's options, None for full training.
    frozen_vision: the image encoder is not trained.
    zero: 2 where optimizer and gradients are divided over the GPUs, 3 where weights are too. offload: the optimizer
    lies in the host's memory. vllm_share, vllm_gpus: vLLM's part of a GPU, and over how many its weights are divided.
    per_device, steps_per_generation, accumulation: micro-batch, how many of them a rollout fills, and how
    many an update takes. rollouts: who generates, "transformers", "colocate" or "server". shared_prefix:
    a prompt is read once per group. cache_bytes: host memory for embeddings. kept: completions of a group that
    train, 0 for all. turns: answers of a conversation at most; each but the first has a picture of its own.
    """

    policy: PolicyModel
    segmenter: SegmenterModel | None
    method: str
    gpus: int
    memory: float
    weights: str = "float32"
    adapters: Mapping[str, Any] | None = None
    frozen_vision: bool = False
    zero: int = 0
    offload: bool = False
    per_device: int = 8
    steps_per_generation: int = 1
    accumulation: int = 1
    num_generations: int = 8
    kept: int = 0
    completion: int = 256
    turns: int = 1
    beta: float = 0.0
    checkpointing: bool = True
    bf16: bool = True
    small_moments: bool = False
    image_wh: tuple[int, int] = IMAGE_WH
    segmenter_bytes: int = 4
    cache_bytes: int = CACHE_BYTES
    rollouts: str = "transformers"
    vllm_share: float = 0.3
    vllm_gpus: int = 1
    shared_prefix: bool = False
    changed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def prompt(self) -> int:
        """Tokens of a prompt, the image's included."""
        return TEXT_TOKENS + self.policy.image_tokens(self.image_wh)

    @property
    def updated(self) -> int:
        """Completions of a micro-batch that train: fewer than `per_device` where the recipe selects."""
        return math.ceil(self.per_device * (self.kept or self.num_generations) / self.num_generations)

    @property
    def rows(self) -> tuple[int, int]:
        """Sequences of a micro-batch and the tokens of each: one per group where that is what the trainer does."""
        plain = (self.updated, self.prompt + self.completion)
        groups = math.ceil(self.updated / (self.kept or self.num_generations))
        packed = (groups, self.prompt + math.ceil(self.updated / groups) * self.completion)
        model = self.policy
        queries, keys = model.heads * model.head, model.kv_heads * model.head
        cost = Cost.of_layers(model.layers, model.width, model.mlp, queries, keys)
        has_room = mask_bytes(*packed) <= MASK_SHARE * self.memory
        return packed if self.shared_prefix and has_room and cost.gains([packed], plain) else plain

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        if self.adapters is not None:
            return adapter_parameters(self.policy, self.adapters)
        return self.policy.parameters - (self.policy.vision_parameters if self.frozen_vision else 0)

    @property
    def trained_bytes(self) -> int:
        """Bytes of a trained parameter: TRL has adapters over 4-bit weights in bfloat16, peft others in float32."""
        if self.adapters is not None:
            return 2 if self.weights == "4bit" else 4
        return SIZES.get(self.weights, 4)

    def changing(self, said: str, **values: Any) -> Setting:
        """A copy with some values changed; `said` is how a recipe says so."""
        return replace(self, **values, changed=(*self.changed, said))


def setting_of(recipe: Recipe, gpus: int, memory_gb: float, image_wh: tuple[int, int] = IMAGE_WH) -> Setting:
    """The setting of a recipe. Raises RecipeError for a policy or segmenter without known dimensions."""
    trainer = {**TRL, **recipe.trainer}
    zero, offload = _sharding_of(trainer)
    policy, wh = policy_model(_weights_of(recipe)), recipe.policy.input_wh or image_wh
    turns = 1 if recipe.turns is None else recipe.turns.max
    gold = turns * GOLD_TOKENS + (turns - 1) * (policy.image_tokens(wh) + LOOK_TOKENS)
    init = trainer.get("model_init_kwargs") or {}
    weights = str(init.get("dtype", "float32")).replace("auto", "bfloat16")
    if recipe.quantization is not None and recipe.quantization.get("load_in_4bit"):
        weights = "4bit"
    section = recipe.segmenter if recipe.method == "grpo" else None
    dtype = "float32" if section is None else section.options.get("dtype", "float32")
    return Setting(
        policy=policy,
        segmenter=None if section is None else segmenter_model(section.name),
        method=recipe.method,
        gpus=gpus,
        memory=memory_gb * GB,
        weights=weights,
        adapters=recipe.peft,
        frozen_vision=recipe.policy.freeze_vision_tower,
        zero=zero,
        offload=offload,
        per_device=trainer["per_device_train_batch_size"],
        steps_per_generation=trainer.get("steps_per_generation") or trainer["gradient_accumulation_steps"],
        accumulation=trainer["gradient_accumulation_steps"],
        num_generations=trainer["num_generations"],
        kept=0 if recipe.select is None else recipe.select.best + recipe.select.worst,
        completion=trainer["max_completion_length"] if recipe.method == "grpo" else gold,
        turns=turns,
        beta=trainer["beta"],
        checkpointing=bool(trainer["gradient_checkpointing"]),
        bf16=bool(trainer["bf16"]) and not trainer.get("fp16", False),
        small_moments="8bit" in str(trainer.get("optim", "")),
        image_wh=wh,
        segmenter_bytes=SIZES.get(dtype, 4),
        cache_bytes=CACHE_BYTES if section is None else section.options.get("cache_bytes", CACHE_BYTES),
        rollouts=trainer.get("vllm_mode", "colocate") if trainer.get("use_vllm") else "transformers",
        vllm_share=trainer["vllm_gpu_memory_utilization"],
        vllm_gpus=trainer["vllm_tensor_parallel_size"],
        shared_prefix=recipe.method == "grpo"
        and recipe.training.shared_prefix
        and turns == 1
        and "flash" not in str(init.get("attn_implementation")),
    )


def _weights_of(recipe: Recipe) -> str:
    """The policy, or the model below it if it is an adapter."""
    return base_of(resolve_policy(recipe.policy.path), recipe.policy.base) or recipe.policy.path


def settings_of(
    stages: Sequence[Stage], gpus: int, memory_gb: float, image_wh: tuple[int, int] = IMAGE_WH
) -> list[Setting]:
    """The setting of each stage; one that goes on from the stage before has its policy's dimensions."""
    found: list[Setting] = []
    policy: Path | None = None
    for stage in stages:
        recipe = stage.resolved(policy)
        policy = Path(recipe.policy.path)
        found.append(setting_of(recipe, gpus, memory_gb, image_wh))
    return found


def _sharding_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """How much is sharded, and whether the optimizer is offloaded to the host.

    FSDP's full shard is ZeRO-3; a DeepSpeed file, its name or a mapping says its stage.
    """
    fsdp, deepspeed = str(trainer.get("fsdp") or ""), trainer.get("deepspeed")
    if "full_shard" in fsdp or fsdp == "True":
        return 3, "offload" in fsdp
    if "shard_grad_op" in fsdp:
        return 2, "offload" in fsdp
    if isinstance(deepspeed, str) and Path(deepspeed).is_file():
        deepspeed = json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    if isinstance(deepspeed, Mapping):
        zero = deepspeed.get("zero_optimization", {})
        return int(zero.get("stage", 0)), (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    found = re.search(r"zero_?(\d)", str(deepspeed or ""))
    return int(found.group(1)) if found else 0, "offload" in str(deepspeed or "")


def adapter_parameters(policy: PolicyModel, options: Mapping[str, Any]) -> int:
    """Parameters of LoRA's two matrices on every layer that `target_modules` takes and `exclude_modules` leaves."""
    rank, wanted, without = options.get("r", 8), options.get("target_modules"), options.get("exclude_modules")
    return sum(
        rank * (layer.inputs + layer.outputs) * layer.count
        for layer in policy.linears()
        if _named(layer.name, wanted, "all-linear") and not (without and _named(layer.name, without, None))
    )


def _named(name: str, pattern: Any, everything: str | None) -> bool:
    if pattern is None:  # peft's own choice for these families
        return name.endswith(("q_proj", "v_proj"))
    if isinstance(pattern, str):
        return pattern == everything or re.fullmatch(pattern, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in pattern)


def needs(setting: Setting) -> list[Need]:
    """Every part of a step, those that are always there first."""
    parts = [*_always(setting), *_update(setting)]
    if setting.method == "grpo":
        parts += [*_rollout(setting), *_reward(setting)]
    return [part for part in parts if part.nbytes > 0]


def peak(parts: list[Need]) -> tuple[str, float]:
    """The phase that takes most, and the bytes of it and of what is always there."""
    always = sum(part.nbytes for part in parts if part.phase == "always")
    phases = {part.phase for part in parts} - {"always"}
    on_top = {phase: sum(part.nbytes for part in parts if part.phase == phase) for phase in sorted(phases)}
    most = max(on_top, key=lambda phase: on_top[phase])
    return most, always + on_top[most]


def fits(setting: Setting) -> bool:
    """Whether the largest phase of a step is within the memory of one GPU, and vLLM's share holds what it must."""
    sequences = vllm_sequences(setting)
    return peak(needs(setting))[1] <= setting.memory and (sequences is None or sequences >= 1)


def vllm_sequences(setting: Setting) -> int | None:
    """How many sequences vLLM's share has room for beside its weights, 0 for none; None without vLLM on these GPUs."""
    if setting.rollouts != "colocate" or setting.method != "grpo":
        return None
    policy, length = setting.policy, setting.prompt + setting.completion
    room = setting.vllm_share * setting.memory - policy.parameters * 2 / setting.vllm_gpus - VLLM_OWN
    return max(0, math.floor(room / (length * policy.cache_numbers * 2 / setting.vllm_gpus)))


def _weight_bytes(setting: Setting) -> float:
    policy = setting.policy
    if setting.weights != "4bit":
        return policy.parameters * SIZES.get(setting.weights, 4)
    return policy.linear_parameters * FOUR_BIT + (policy.parameters - policy.linear_parameters) * 2


def _shared(setting: Setting, from_stage: int) -> int:
    """Over how many GPUs a part is divided that ZeRO divides from this stage on."""
    return setting.gpus if setting.zero >= from_stage else 1


def _always(setting: Setting) -> list[Need]:
    weights, trainable = _weight_bytes(setting), setting.trainable
    adapters = 0 if setting.adapters is None else trainable * setting.trained_bytes
    reference = weights if setting.beta and setting.adapters is None and setting.method == "grpo" else 0
    moments = trainable * (2 if setting.small_moments else 2 * setting.trained_bytes) / _shared(setting, 1)
    moments *= 0 if setting.offload else 1
    parts = [
        Need("weights", "always", weights / _shared(setting, 3), f"{setting.policy.parameters / 1e9:.2f} B"),
        Need("adapters", "always", adapters, f"{trainable / 1e6:.0f} M, LoRA"),
        Need("optimizer", "always", moments, f"Adam's moments of {_count(trainable)}"),
        Need("reference", "always", reference / _shared(setting, 3), "for the KL; the weights once more"),
    ]
    if setting.rollouts == "colocate" and setting.method == "grpo":
        share, n = setting.vllm_share * setting.memory, vllm_sequences(setting)
        what = f"its weights and the cache of {n} sequences" if n else "too little for its weights and one sequence"
        parts.append(Need("vLLM", "always", share, f"vllm_gpu_memory_utilization {setting.vllm_share:g}: {what}"))
    if setting.segmenter is not None:
        held = setting.segmenter.parameters * setting.segmenter_bytes
        parts.append(Need("segmenter", "always", held, f"{setting.segmenter.parameters / 1e6:.0f} M"))
    return [*parts, Need("reserve", "always", RESERVE, "CUDA and fragmentation")]


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.0f} M"


def _autocast_copies(setting: Setting) -> float:
    """What autocast keeps of trained float32 weights in bfloat16 for as long as a forward pass takes."""
    casts = setting.bf16 and setting.weights == "float32" and setting.adapters is None
    return setting.trainable * 2 / _shared(setting, 3) if casts else 0


def _update(setting: Setting) -> list[Need]:
    policy, batch, (rows, length) = setting.policy, setting.updated, setting.rows
    stream = 4 if setting.weights == "float32" else 2
    wide = 2 if setting.bf16 else 4
    see, checkpointing = policy.vision, setting.checkpointing
    attention = (policy.heads + 2 * policy.kv_heads) * policy.head
    text = Block(policy.layers, policy.width, policy.mlp, attention).kept(rows * length, stream, wide, checkpointing)
    group = setting.kept or setting.num_generations
    prompts = batch if setting.method == "sft" else math.ceil(batch / group)  # equal pictures are encoded once
    images = prompts + batch * (setting.turns - 1)
    grid = policy.image_tokens(setting.image_wh) * policy.vision.merge**2 * images
    encoder = Block(see.layers, see.width, see.mlp, 3 * see.width)
    seen = 0 if setting.frozen_vision else encoder.kept(grid, stream, wide, checkpointing)
    scored = length if setting.method == "sft" else setting.completion
    logits = batch * scored * policy.vocabulary * (wide + 4 + 4)
    gradients = setting.trainable * setting.trained_bytes
    buckets = gradients if setting.gpus > 1 and setting.zero == 0 else 0
    return [
        Need("gradients", "update", (gradients + buckets) / _shared(setting, 2), f"of {_count(setting.trainable)}"),
        Need("autocast", "update", _autocast_copies(setting), "bfloat16 copies of float32 weights"),
        Need("activations", "update", text + seen, f"{rows} × {length} tokens"),
        Need("mask", "update", mask_bytes(rows, length) if rows < batch else 0, "each completion sees its prompt"),
        Need("logits", "update", logits, f"{batch} × {scored} × {policy.vocabulary}"),
    ]


def _rollout(setting: Setting) -> list[Need]:
    if setting.rollouts != "transformers":
        return []
    policy, at_once = setting.policy, setting.per_device * setting.steps_per_generation
    length, wide = setting.prompt + setting.completion, 2 if setting.bf16 or setting.weights != "float32" else 4
    per_token = policy.cache_numbers * wide
    prompts = math.ceil(at_once / setting.num_generations) if setting.shared_prefix else at_once
    read = length if setting.turns > 1 else setting.prompt  # each turn reads the conversation anew
    prefill = prompts * read * (4 * policy.width + 2 * policy.mlp) * wide
    gathered = _weight_bytes(setting) * (1 - 1 / setting.gpus) if setting.zero == 3 else 0
    return [
        Need("rollout cache", "rollout", at_once * length * per_token, f"{at_once} × {length} tokens"),
        Need("prefill", "rollout", prefill, f"{prompts} prompts at once"),
        Need("gathered", "rollout", gathered, "ZeRO-3 brings all weights together to generate"),
        Need("autocast", "rollout", _autocast_copies(setting), "bfloat16 copies of float32 weights"),
    ]


def _reward(setting: Setting) -> list[Need]:
    if setting.segmenter is None:
        return []
    sam, wide = setting.segmenter, setting.segmenter_bytes
    first_stage = 256 * 256 * sam.embed * wide
    images = math.ceil(setting.per_device * setting.steps_per_generation / setting.num_generations)
    cache, kept = images * sam.embedding * wide, int(setting.cache_bytes // (sam.embedding * wide))
    return [
        Need("encoding", "reward", SAM_ENCODE_BATCH * 10 * first_stage, f"{SAM_ENCODE_BATCH} images at 1024×1024"),
        Need("decoding", "reward", SAM_DECODE, "64 prompts, masks at the image's size"),
        Need(
            "embeddings", "reward", cache, f"{images} images; {setting.cache_bytes / GB:.1f} GB of the host keep {kept}"
        ),
    ]
