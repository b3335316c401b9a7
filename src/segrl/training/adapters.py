"""What of a policy is trained: all of it, adapters alone (LoRA, QLoRA), or all but the vision tower."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from segrl.errors import RecipeError
from segrl.text import nearest, one_line
from segrl.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    tower.requires_grad_(False).eval()
    vars(tower)["train"] = lambda mode=True: tower  # `model.train()` calls this on its children
