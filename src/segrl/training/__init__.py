"""Training: a recipe → SFT or GRPO through TRL. Importing this package loads no torch."""

from __future__ import annotations

from segrl.training.recipe import Recipe, load_recipe, parse_recipe
from segrl.training.train import TrainResult, train

__all__ = ["Recipe", "TrainResult", "load_recipe", "parse_recipe", "train"]
