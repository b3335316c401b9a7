"""Builds TRL's trainer for a recipe, with our data, rewards and callbacks in it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.devices import ComputeType, device_name, installed_version, rank
from segrl.errors import RecipeError
from segrl.files import write_atomically
from segrl.policies.checkpoint import without_adapters
from segrl.policies.model_speedups import keep_room, project_patches
from segrl.rewards.trl_adapter import Shuffle, TrlRewards
from segrl.training import sharding, turns
from segrl.training.callbacks import CompletionMarker, Findings, Rollouts, StepLog, StopWhenBroken
from segrl.training.checkpoints import Pictures, RunDir, starting_point
from segrl.training.held_out import HeldOut, check_held_out
from segrl.training.options import adapters, build_config, freeze_vision_tower, keep_statistics, prepare_vllm
from segrl.training.parts import Parts, layout, lazy_dataset, rows_needed
from segrl.training.speed import Phases, add_first, keep_freed_memory

if TYPE_CHECKING:
    from PIL.Image import Image

VERSIONED = (
    "segrl",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "numpy",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Built:
    """A trainer ready to run. last_step: the step after which it is done. marker: to be added as its last callback."""

    trainer: Any
    last_step: int
    marker: CompletionMarker


RolloutFunction = Callable[[list[Any], Any], dict[str, Any]]
"""TRL's `rollout_func`: prompts and trainer → prompt_ids, completion_ids, logprobs."""


def build(
    parts: Parts,
    run: RunDir,
    *,
    rollout_func: RolloutFunction | None = None,
    say: Callable[[str], None] = print,
) -> Built:
    """The trainer of a recipe. Raises RecipeError, ModelError or DataError for what the recipe gets wrong."""
    recipe = parts.recipe
    config = build_config(recipe, run.checkpoints, began_with=began_with(run), say=say)
    check_held_out(recipe, config)
    if config.use_cpu:
        keep_freed_memory()
    sharding.switch_on(config, say)
    policy = parts.policy
    if recipe.method == "grpo":
        trainer, rewards = _grpo_trainer(parts, run, config, rollout_func)
        if recipe.training.shared_prefix:
            trainer.share_prefixes(say)
    else:
        trainer, rewards = _sft_trainer(parts, run, config), None
    sharding.finish(trainer)
    if recipe.policy.freeze_vision_tower:
        freeze_vision_tower(trainer.model)
    if recipe.peft is not None:
        keep_statistics(trainer.model)
    _quieten(trainer)
    _log_to(run, trainer)
    held_out = _held_out(parts, run, trainer, say)
    add_first(trainer, Phases(rewards, held_out), *([] if held_out is None else [held_out]))
    trainer.add_callback(StepLog(run, rewards))
    if rewards is not None:
        trainer.add_callback(Findings(run, say))
    trainer.add_callback(StopWhenBroken())
    segmenter = None if recipe.segmenter is None else recipe.segmenter.name
    settings = policy.settings.override(segmenter=segmenter)
    return Built(trainer, _last_step(trainer), CompletionMarker(run, settings, recipe.checkpoints))


def _rows(parts: Parts, config: Any, row: Any, keep: int) -> Any:
    recipe, examples = parts.recipe, parts.examples
    epochs = float(recipe.trainer.get("num_train_epochs", 1))
    rows = rows_needed(config, recipe.method, len(examples), epochs)
    return lazy_dataset(examples, layout(len(examples), rows, recipe.seed), row, keep)


def _grpo_trainer(
    parts: Parts, run: RunDir, config: Any, rollout_func: RolloutFunction | None
) -> tuple[Any, TrlRewards]:
    from segrl.training.selection import Selection, SelectiveTrainer, check_selection
    from segrl.training.speed import share_images

    recipe, policy = parts.recipe, parts.policy
    rewards = TrlRewards(
        parts.engine,
        policy.read,
        shuffle=Shuffle(recipe.seed, config.num_generations) if recipe.control.shuffle_rewards else None,
        logs_rollouts=recipe.log.rollouts.wants,
        keep_pictures=_keeper(run, recipe.log.rollouts.groups * config.num_generations),
        finished=None if recipe.turns is None else partial(turns.finished, parts.text_to_masks, policy),
    )
    config.reward_weights = rewards.weights
    queries = config.generation_batch_size // config.num_generations
    check_selection(recipe, config)
    prepare_vllm(config, policy.settings.input_wh, policy.processor)
    template, rows = policy.processor.chat_template, _rows(parts, config, policy.reader.rl_row, keep=2 * queries)
    environments = turns.prepare(parts, config)
    with turns.quiet_experiment():
        trainer = SelectiveTrainer(
            model=starting_point(policy, run),
            args=config,
            reward_funcs=rewards.functions(),
            train_dataset=rows,
            processing_class=policy.processor,
            rollout_func=rollout_func,
            **environments,
            **adapters(recipe),
        )
    if recipe.turns is not None:
        trainer.shared_first = recipe.turns.shared_first
        trainer.add_callback(turns.OwnTemplate(template, run.checkpoints))
    trainer.select(Selection.of(recipe))
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            project_patches(model)
            share_images(model)
    keep_room(without_adapters(trainer.model))
    trainer.add_callback(Rollouts(run, recipe.log.rollouts, config.num_generations))
    return trainer, rewards


def _keeper(run: RunDir, rows: int) -> Callable[[Sequence[str], Sequence[Image]], None]:
    """Keeps the pictures of the first `rows` completions of all processes, which go to the rollout log.

    TRL puts those of the first process first, and each has as many.
    """
    pictures = Pictures(run.pictures)

    def keep(image_ids: Sequence[str], images: Sequence[Image]) -> None:
        mine = max(0, rows - rank() * len(image_ids))
        for image_id, image in dict(zip(image_ids[:mine], images, strict=False)).items():
            pictures.save(image_id, image)

    return keep


def _sft_trainer(parts: Parts, run: RunDir, config: Any) -> Any:
    from trl import SFTTrainer

    recipe, policy = parts.recipe, parts.policy
    _check_length(parts, config.max_length)
    trainer = SFTTrainer(
        model=starting_point(policy, run),
        args=config,
        train_dataset=_rows(parts, config, policy.reader.sft_row, keep=0),
        processing_class=policy.processor,
        **adapters(recipe),
    )
    project_patches(trainer.model)
    return trainer


def _check_length(parts: Parts, max_length: int | None) -> None:
    """Raises RecipeError for a length that cuts the tokens of the first example's image; TRL would fail in its step."""
    if max_length is None:
        return
    policy, example = parts.policy, parts.examples[0]
    images = policy.reader.sft_row(example)["images"]
    text = policy.reader.render_prompt(policy.reader.prompt(example))
    tokens = len(policy.processor(text=[text], images=images or None)["input_ids"][0])
    if tokens >= max_length:
        raise RecipeError(
            f"trainer.max_length: {max_length} is too short: the prompt of the first example has {tokens} tokens, "
            "those of its image among them, and the answer comes after them; null cuts nothing"
        )


def _held_out(parts: Parts, run: RunDir, trainer: Any, say: Callable[[str], None]) -> HeldOut | None:
    """What measures held-out examples during training; None where the recipe does not ask for it."""
    section = parts.recipe.evaluation
    return None if section is None or not section.every else HeldOut(trainer, parts, run, say)


def _log_to(run: RunDir, trainer: Any) -> None:
    """TensorBoard's files lie in the run's directory unless its own environment variable says where."""
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(run.path / "tensorboard")


def _quieten(trainer: Any) -> None:
    """Takes out the callbacks that print every log as a dictionary."""
    from transformers import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def _last_step(trainer: Any) -> int:
    """After how many updates the run is done; one epoch of the laid-out data unless `max_steps` is set."""
    loader = trainer.get_train_dataloader()
    return int(trainer.set_initial_training_values(trainer.args, loader)[-1])


def began_with(run: RunDir) -> ComputeType | None:
    """The compute type of a run that is resumed from a checkpoint; None for one that starts from its first step."""
    checkpoint = run.checkpoints.exists() and any(run.checkpoints.glob("checkpoint-*"))
    starts = _starts(run) if checkpoint else []
    return ComputeType(starts[0].get("compute_type", "bfloat16")) if starts else None  # TRL's default, until 0.1.0


def _starts(run: RunDir) -> list[dict[str, Any]]:
    path = run.path / "run.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["starts"]) if path.exists() else []


def record_start(run: RunDir, checkpoint: Path | None, config: Any) -> None:
    """Adds this start to run.json: command and launcher, revision, versions, machine, checkpoint it goes on from."""
    starts = _starts(run)
    starts.append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "launched_by": os.environ.get("SEGRL_LAUNCHED_BY"),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "from_step": None if checkpoint is None else checkpoint.name.rpartition("-")[2],
            "revision": git_revision(),
            "versions": {name: installed_version(name) for name in VERSIONED},
            "python": platform.python_version(),
            "device": device_name(),
            "compute_type": "bfloat16" if config.bf16 else "float16" if config.fp16 else "float32",
        }
    )
    write_atomically(run.path / "run.json", json.dumps({"starts": starts}, indent=1) + "\n")


def git_revision() -> str | None:
    """The commit of the source tree that segrl runs from, `+` behind it if files were changed; None outside git."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty.strip() else "")
