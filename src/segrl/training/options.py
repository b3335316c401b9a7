"""From a recipe to TRL's and peft's configuration: what we add, what we refuse, and what of a policy is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from segrl.devices import ComputeType, cpu_compute_type
from segrl.errors import RecipeError
from segrl.text import nearest, one_line
from segrl.training.recipe import Recipe
from segrl.training.sharding import check_sharding, prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel


OURS: Mapping[str, str] = {
    "output_dir": "is the run's directory",
    "seed": "is the recipe's own `seed`",
    "data_seed": "follows from the recipe's own `seed`",
    "reward_weights": "is what the recipe's `rewards` says",
    "save_total_limit": "is what the recipe's `checkpoints` says (last: N)",
    "resume_from_checkpoint": "is not needed: the same command goes on where the run stopped",
}
"""Trainer options that a recipe may not set, and why."""

FIXED: Mapping[str, Mapping[str, Any]] = {
    "both": {"remove_unused_columns": False, "num_train_epochs": 1, "disable_tqdm": True, "save_total_limit": None},
    "grpo": {"shuffle_dataset": False, "num_completions_to_print": 0, "log_multimodal": False},
    "sft": {"train_sampling_strategy": "sequential", "packing": False},
}
"""Values that exact resume and the rollout log stand on. `num_train_epochs` is read before: see `data.layout`."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "both": {"logging_steps": 1},
    "grpo": {},
    "sft": {"max_length": None},
}
"""Where ours differ from TRL's; a recipe may set others. SFT's default length would cut image tokens."""


def config_class(method: str) -> type:
    """TRL's configuration class for a method."""
    from trl import GRPOConfig, SFTConfig

    return {"grpo": GRPOConfig, "sft": SFTConfig}[method]


def build_config(
    recipe: Recipe,
    output_dir: Path,
    *,
    began_with: ComputeType | None = None,
    say: Callable[[str], None] = print,
) -> Any:
    """TRL's configuration for a recipe. Without a GPU adds `use_cpu: true` and the faster compute type, and says so.

    began_with: the compute type of the run that is resumed, which is kept.

    Raises RecipeError for an unknown option (naming the nearest), one that segrl sets itself, one
    that resume forbids, and whatever TRL finds wrong.
    """
    import torch

    given = dict(recipe.trainer)
    cls = config_class(recipe.method)
    _check_names(given, [field.name for field in dataclasses.fields(cls) if field.init], recipe.method)
    _check_numbers(given, cls)
    _check_vllm(recipe)
    given.pop("num_train_epochs", None)
    options = {**DEFAULTS["both"], **DEFAULTS[recipe.method], **given, **FIXED["both"], **FIXED[recipe.method]}
    options |= {"output_dir": str(output_dir), "seed": recipe.seed}
    if recipe.method == "grpo":
        options["log_completions"] = options.get("log_completions", True) or recipe.log.rollouts.every > 0
        options["reward_weights"] = [term.weight for term in recipe.terms()]
    if "use_cpu" not in options and not torch.accelerator.is_available():
        options["use_cpu"] = True
        say("no GPU found: training on the CPU (use_cpu: true)")
    if options.get("use_cpu"):
        _choose_compute_type(options, began_with, say)
    prepare(options)
    try:
        config = cls(**options)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"trainer: {one_line(error)}{_batch_sizes(options, str(error))}") from error
    check_sharding(config)
    check_resumable(config, recipe.method)
    if recipe.checkpoints.best:
        _check_best(recipe, config)
    return config


def _choose_compute_type(options: dict[str, Any], began_with: ComputeType | None, say: Callable[[str], None]) -> None:
    """Sets `bf16` on a CPU where the recipe does not: TRL's default is true, which many processors only emulate."""
    asked = options.get("bf16")
    if asked is None and not options.get("fp16"):
        chosen = began_with or cpu_compute_type()
        options["bf16"] = chosen.is_bfloat16
        say(f"computing in {chosen.name}: {chosen.measured or 'the run began with it'}")
    elif asked and not cpu_compute_type().is_bfloat16:
        say(f"computing in bfloat16 as asked: {cpu_compute_type().measured}; trainer.bf16=false avoids that")


def _batch_sizes(options: Mapping[str, Any], error: str) -> str:
    """The recipe's keys behind TRL's message that a rollout does not divide into groups; "" for any other."""
    if "num_generations" not in error or "divisible" not in error:
        return ""
    keys = ("per_device_train_batch_size", "steps_per_generation", "gradient_accumulation_steps", "num_generations")
    given = ", ".join(f"{key}: {options[key]}" for key in keys if options.get(key) is not None)
    return (
        f" (the recipe says {given or 'none of them'}: per_device_train_batch_size × processes × steps_per_generation, "
        "which without it is gradient_accumulation_steps, must be a multiple of num_generations)"
    )


def _check_best(recipe: Recipe, config: Any) -> None:
    """Held-out answers must be asked for where a checkpoint falls."""
    every = 0 if recipe.evaluation is None else recipe.evaluation.every
    if every % config.save_steps:
        raise RecipeError(
            f"checkpoints.best: evaluation.every ({every}) must be a multiple of trainer.save_steps "
            f"({config.save_steps})"
        )


def _check_names(given: Mapping[str, Any], known: list[str], method: str) -> None:
    fixed = {**FIXED["both"], **FIXED[method]}
    for key, value in given.items():
        if key in OURS:
            raise RecipeError(f"trainer.{key} {OURS[key]}: take it out")
        if key not in known:
            raise RecipeError(f"unknown key trainer.{key}; did you mean trainer.{nearest(key, known)}?")
        if key in fixed and key != "num_train_epochs" and value != fixed[key]:
            raise RecipeError(f"trainer.{key} must stay {fixed[key]!r}: resuming a run exactly needs it so")


def check_resumable(config: Any, method: str) -> None:
    """Refuses what would make a resumed run differ from an undisturbed one; raises RecipeError."""
    if str(config.eval_strategy) not in ("no", "IntervalStrategy.NO"):
        raise RecipeError("trainer.eval_strategy: say evaluation.every in the recipe instead")
    strategy = getattr(config.save_strategy, "value", config.save_strategy)
    if strategy != "steps":
        raise RecipeError(
            f"trainer.save_strategy must be steps, not {strategy}; save_steps may be as large as you like"
        )
    if config.save_only_model:
        raise RecipeError("trainer.save_only_model: a run without its optimizer state cannot be resumed")
    for name in ("save_steps", "logging_steps"):
        if getattr(config, name) != int(getattr(config, name)) or getattr(config, name) < 1:
            raise RecipeError(f"trainer.{name} must be a whole number of steps, not {getattr(config, name)}")
    if config.save_steps % config.logging_steps:
        raise RecipeError(
            f"trainer.save_steps ({config.save_steps}) must be a multiple of logging_steps ({config.logging_steps}): "
            "what was not logged yet is lost with the process"
        )
    if method == "grpo":
        _check_generation_phase(config)


def _check_numbers(given: Mapping[str, Any], cls: type) -> None:
    """Raises RecipeError for an option that is no number, or neither true nor false, where TRL's field wants one.

    TRL itself takes anything, and fails much later.
    """
    for field in dataclasses.fields(cls):
        wanted = set(get_args(field.type) or (field.type,))
        if field.name not in given or not wanted <= _NUMBERS.keys():
            continue
        value = given[field.name]
        if type(value) not in wanted and not (type(value) is int and float in wanted):
            words = " or ".join(said for kind, said in _NUMBERS.items() if kind in wanted)
            raise RecipeError(f"trainer.{field.name} is {words}, not {value!r}")


_NUMBERS = {bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


def _check_vllm(recipe: Recipe) -> None:
    """Raises RecipeError for rollouts by vLLM that would not be what the recipe says.

    TRL drops sequences by default whose tokens vLLM and the trainer see differently: a recipe says what it wants.
    Adapters are synchronised merged into the weights below them, which 4-bit weights cannot hold exactly.
    """
    option = "vllm_importance_sampling_correction"
    if not recipe.trainer.get("use_vllm"):
        return
    if option not in recipe.trainer:
        raise RecipeError(f"trainer.use_vllm: set trainer.{option} too; left out, TRL drops sequences without a word")
    if recipe.quantization is not None:
        raise RecipeError(
            "trainer.use_vllm goes without quantization: TRL merges the adapters into the 4-bit weights for each "
            "rollout, so vLLM would answer as another policy; take bfloat16 weights, or rollouts without vLLM"
        )


def prepare_vllm(config: Any, input_wh: tuple[int, int] | None, processor: Any) -> None:
    """Makes a configuration ready for rollouts by vLLM; nothing without `use_vllm`.

    TRL 1.16 hands vLLM prompts whose image tokens are expanded already, beside the picture: with pictures of
    several sizes in one batch the two need not agree. Raises RecipeError without one size for all pictures. Tokens
    that stand for pictures and videos, which no answer may hold, are suppressed in sampling, as TRL does without vLLM.
    """
    if not config.use_vllm:
        return
    if input_wh is None:
        raise RecipeError(
            "trainer.use_vllm: vLLM's prompts are right for pictures of one size only: set policy.input_wh, for "
            "instance [840, 840]"
        )
    words = [getattr(processor, name, None) for name in ("image_token", "video_token")]
    given = dict(config.generation_kwargs or {})
    given["bad_words"] = [*given.get("bad_words", ()), *(word for word in words if word)]
    config.generation_kwargs = given


def _check_generation_phase(config: Any) -> None:
    per_generation = config.steps_per_generation * config.num_iterations
    per_save = int(config.save_steps) * config.gradient_accumulation_steps
    if per_save % per_generation:
        fitting = math.lcm(per_generation, config.gradient_accumulation_steps) // config.gradient_accumulation_steps
        raise RecipeError(
            f"trainer: a checkpoint would fall into a half-used rollout: save_steps × gradient_accumulation_steps "
            f"({per_save}) must be a multiple of steps_per_generation × num_iterations ({per_generation}); "
            f"save_steps: {math.ceil(config.save_steps / fitting) * fitting} would do"
        )


def adapters(recipe: Recipe) -> dict[str, Any]:
    """`peft_config` and `quantization_config` for GRPOTrainer and SFTTrainer; nothing without a `peft` section.

    Raises RecipeError for an option that LoraConfig does not have (naming the nearest), for what
    either library finds wrong, and where bitsandbytes is not installed.
    """
    if recipe.peft is None:
        return {}
    from peft import LoraConfig

    known = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
    for key in recipe.peft:
        if key not in known:
            raise RecipeError(f"unknown key peft.{key}; did you mean peft.{nearest(key, known)}?")
    found: dict[str, Any] = {"peft_config": _made(LoraConfig, "peft", {"task_type": "CAUSAL_LM", **recipe.peft})}
    if recipe.quantization is not None:
        if find_spec("bitsandbytes") is None:
            raise RecipeError("quantization needs bitsandbytes: pip install bitsandbytes")
        from transformers import BitsAndBytesConfig

        found["quantization_config"] = _made(BitsAndBytesConfig, "quantization", recipe.quantization)
    return found


def _made(config: Any, section: str, options: Mapping[str, Any]) -> Any:
    try:
        return config(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{section}: {one_line(error)}") from error


def freeze_vision_tower(model: PreTrainedModel) -> None:
    """Keeps the image encoder, its mergers included, as it is: the gradients stop before it, and its normalisations
    and dropout stay as they are in use, whatever the trainer sets the model to.

    Raises RecipeError for a model that has none.
    """
    tower = model.get_encoder(modality="image")
    if tower is model:
        raise RecipeError(f"policy.freeze_vision_tower: {type(model).__name__} has no image encoder of its own")
    tower.requires_grad_(False)
    _keep_as_in_use(tower)


def keep_statistics(model: PreTrainedModel) -> None:
    """Keeps batch normalisation that is not trained as it is in use: adapters are saved without its statistics."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(weight.requires_grad for weight in module.parameters()):
            _keep_as_in_use(module)


def _keep_as_in_use(module: Any) -> None:
    module.eval()
    vars(module)["train"] = lambda mode=True: module  # a model's `train()` calls this on its children
