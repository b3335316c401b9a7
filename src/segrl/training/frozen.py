"""What a recipe does not train: `policy.freeze_vision_tower`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segrl.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def freeze_vision_tower(model: PreTrainedModel) -> None:
    """Keeps the image encoder, its mergers included, as it is: the gradients stop before it.

    Raises RecipeError for a model that has none.
    """
    tower = model.get_encoder(modality="image")
    if tower is model:
        raise RecipeError(f"policy.freeze_vision_tower: {type(model).__name__} has no image encoder of its own")
    tower.requires_grad_(False)
