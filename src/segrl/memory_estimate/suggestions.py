"""The changes after which a recipe fits, those first that leave the training as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from segrl.memory_estimate.estimate import Setting, fits, vllm_sequences

MOST = 4
"""Changes that are tried together."""

LORA = {
    "r": 64,
    "lora_alpha": 128,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
    "exclude_modules": ".*visual.*",
}


@dataclass(frozen=True)
class Change:
    """A thing to change, at one or more strengths, the mildest first.

    apply: a setting → what it may become; nothing where the change is made already or makes no sense.
    harm: 0 for what leaves the training as it is, more the more it alters what is trained.
    """

    name: str
    harm: int
    apply: Callable[[Setting], Iterator[Setting]]


def _checkpointing(s: Setting) -> Iterator[Setting]:
    if not s.checkpointing:
        yield s.changing("trainer.gradient_checkpointing=true", checkpointing=True)


def _smaller_micro_batch(s: Setting) -> Iterator[Setting]:
    batch, steps, updates = s.per_device, s.steps_per_generation, s.accumulation
    while batch % 2 == 0:
        batch, steps, updates = batch // 2, steps * 2, updates * 2
        said = f"trainer.per_device_train_batch_size={batch} trainer.gradient_accumulation_steps={updates}"
        said += "" if steps == updates else f" trainer.steps_per_generation={steps}"
        yield s.changing(said, per_device=batch, steps_per_generation=steps, accumulation=updates)


def _smaller_rollouts(s: Setting) -> Iterator[Setting]:
    """Several rollouts for one update, all from the same weights."""
    steps = s.steps_per_generation
    while s.method == "grpo" and s.rollouts == "transformers" and steps % 2 == 0:
        steps //= 2
        if s.per_device * s.gpus * steps % s.num_generations == 0:
            yield s.changing(f"trainer.steps_per_generation={steps}", steps_per_generation=steps)


def _sharding(s: Setting) -> Iterator[Setting]:
    """ZeRO-2, ZeRO-3, and ZeRO-3 with the optimizer in the host's memory; FSDP's full shard divides as ZeRO-3 does."""
    if s.gpus > 1 and s.weights != "4bit" and not s.offload:
        for stage in range(max(2, s.zero + 1), 4):
            yield s.changing(f"trainer.deepspeed=recipes/zero{stage}.json", zero=stage)
        yield s.changing("trainer.deepspeed=recipes/zero3_offload.json", zero=3, offload=True)


def _larger_share(s: Setting) -> Iterator[Setting]:
    """More of the GPU for vLLM, where its share does not hold its weights and one sequence."""
    share = s.vllm_share
    while vllm_sequences(s) == 0 and share < 0.65:
        share = round(share + 0.1, 2)
        yield s.changing(f"trainer.vllm_gpu_memory_utilization={share:g}", vllm_share=share)


def _half_segmenter(s: Setting) -> Iterator[Setting]:
    if s.segmenter is not None and s.segmenter_bytes == 4:
        yield s.changing("segmenter.dtype=bfloat16", segmenter_bytes=2)


def _small_moments(s: Setting) -> Iterator[Setting]:
    if not s.small_moments:
        yield s.changing("trainer.optim=adamw_bnb_8bit", small_moments=True)


def _adapters(s: Setting) -> Iterator[Setting]:
    if s.adapters is None:
        said = f"peft={{{', '.join(f'{key}: {value}' for key, value in LORA.items())}}}"
        both = f"'{said}' trainer.model_init_kwargs.dtype=bfloat16"
        yield s.changing(both, adapters=LORA, weights="bfloat16")
    elif s.weights == "float32":
        yield s.changing("trainer.model_init_kwargs.dtype=bfloat16", weights="bfloat16")


def _four_bits(s: Setting) -> Iterator[Setting]:
    if s.adapters is not None and s.weights != "4bit" and s.zero < 3:
        said = "'quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bfloat16}'"
        yield s.changing(said, weights="4bit")


def _fewer_completions(s: Setting) -> Iterator[Setting]:
    """Half of each group, and with it half of a rollout: as many queries."""
    n, steps, updates = s.num_generations, s.steps_per_generation, s.accumulation
    while (
        s.method == "grpo" and not s.kept and n % 2 == steps % 2 == updates % 2 == 0 and n // 2 >= max(2, s.per_device)
    ):
        n, steps, updates = n // 2, steps // 2, updates // 2
        said = f"trainer.num_generations={n} trainer.gradient_accumulation_steps={updates}"
        said += "" if steps == updates else f" trainer.steps_per_generation={steps}"
        yield s.changing(said, num_generations=n, steps_per_generation=steps, accumulation=updates)


def _smaller_images(s: Setting) -> Iterator[Setting]:
    for side in (672, 560, 448):
        if side**2 < s.image_wh[0] * s.image_wh[1]:
            yield s.changing(f"policy.input_wh=[{side},{side}]", image_wh=(side, side))


def _shorter_completions(s: Setting) -> Iterator[Setting]:
    for length in (512, 256):
        if s.method == "grpo" and s.turns == 1 and length < s.completion:  # turns need the room for their pictures
            yield s.changing(f"trainer.max_completion_length={length}", completion=length)


CHANGES = (
    Change("gradient checkpointing", 0, _checkpointing),
    Change("smaller rollouts", 0, _smaller_rollouts),
    Change("smaller micro-batches", 0, _smaller_micro_batch),
    Change("sharding", 0, _sharding),
    Change("a larger share for vLLM", 0, _larger_share),
    Change("segmenter in bfloat16", 1, _half_segmenter),
    Change("8-bit moments", 2, _small_moments),
    Change("adapters", 4, _adapters),
    Change("4-bit weights", 5, _four_bits),
    Change("fewer completions", 6, _fewer_completions),
    Change("smaller images", 6, _smaller_images),
    Change("shorter completions", 6, _shorter_completions),
)
"""In the order in which they are made, which is that of the harm that they do."""

_SETS = sorted(
    (changes for count in range(1, MOST + 1) for changes in combinations(CHANGES, count)),
    key=lambda changes: (sum(change.harm for change in changes), len(changes)),
)

_ALTERING = {
    "adapters": "adapters in place of all weights",
    "weights": "weights of lower precision",
    "segmenter_bytes": "the segmenter in bfloat16",
    "small_moments": "8-bit moments",
    "num_generations": "fewer completions",
    "image_wh": "smaller images",
    "completion": "shorter completions",
}


def smallest_changes(setting: Setting) -> Setting | None:
    """The setting after the changes that make it fit and do the least harm together; of those the fewest.

    Its `changed` says what a recipe must say. None where no set of up to `MOST` is enough.
    """
    if fits(setting):
        return setting
    for changes in _SETS:
        found = next((after for after in _all(setting, changes) if fits(after)), None)
        if found is not None:
            return found
    return None


def altered(before: Setting, after: Setting) -> list[str]:
    """What of the training is another one after the changes; empty where it stays as it is."""
    return [said for name, said in _ALTERING.items() if getattr(before, name) != getattr(after, name)]


def _all(setting: Setting, changes: tuple[Change, ...]) -> Iterator[Setting]:
    """The setting after all of the changes, at every strength, the mildest first."""
    if not changes:
        yield setting
        return
    first, *rest = changes
    for after in first.apply(setting):
        yield from _all(after, tuple(rest))
