"""The smallest set of changes after which a recipe fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from segrl.memory_estimate.needs import Setting, fits

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
    cost: 0 for what leaves the result as it is, more the more it changes what is trained.
    """

    name: str
    cost: int
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
    if s.gpus > 1 and s.weights != "4bit":
        for stage in range(max(2, s.zero + 1), 4):
            yield s.changing(f"trainer.deepspeed=recipes/zero{stage}.json", zero=stage)


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


def _smaller_images(s: Setting) -> Iterator[Setting]:
    for side in (672, 560, 448):
        if side**2 < s.image_wh[0] * s.image_wh[1]:
            yield s.changing(f"policy.input_wh=[{side},{side}]", image_wh=(side, side))


def _shorter_completions(s: Setting) -> Iterator[Setting]:
    for length in (512, 256):
        if s.method == "grpo" and length < s.completion:
            yield s.changing(f"trainer.max_completion_length={length}", completion=length)


CHANGES = (
    Change("gradient checkpointing", 0, _checkpointing),
    Change("smaller rollouts", 0, _smaller_rollouts),
    Change("smaller micro-batches", 0, _smaller_micro_batch),
    Change("sharding", 0, _sharding),
    Change("segmenter in bfloat16", 1, _half_segmenter),
    Change("8-bit moments", 2, _small_moments),
    Change("adapters", 4, _adapters),
    Change("4-bit weights", 5, _four_bits),
    Change("smaller images", 6, _smaller_images),
    Change("shorter completions", 6, _shorter_completions),
)
"""In the order in which they are made."""


def smallest_changes(setting: Setting) -> Setting | None:
    """The setting after the fewest changes that make it fit; of as many, those that change the training least.

    Its `changed` says what a recipe must say. None where no set of up to `MOST` is enough.
    """
    if fits(setting):
        return setting
    for count in range(1, MOST + 1):
        sets = sorted(combinations(CHANGES, count), key=lambda changes: sum(change.cost for change in changes))
        for changes in sets:
            found = next((after for after in _all(setting, changes) if fits(after)), None)
            if found is not None:
                return found
    return None


def _all(setting: Setting, changes: tuple[Change, ...]) -> Iterator[Setting]:
    """The setting after all of the changes, at every strength, the mildest first."""
    if not changes:
        yield setting
        return
    first, *rest = changes
    for after in first.apply(setting):
        yield from _all(after, tuple(rest))
