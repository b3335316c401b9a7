"""Reward terms over scores and answers, their weighted sum, and the adapter to TRL. Imports no torch."""

from __future__ import annotations

import importlib
from typing import Any

from segrl.rewards.engine import Completions, RewardBatch, RewardEngine
from segrl.rewards.registry import TERMS, RewardTerm, build_terms
from segrl.rewards.rollout import Rollout

__all__ = [
    "TERMS",
    "Completions",
    "RewardBatch",
    "RewardEngine",
    "RewardTerm",
    "Rollout",
    "build_terms",
    "from_recipe",
]


def __getattr__(name: str) -> Any:
    # A recipe is read above this layer; the name stands here because this is where one looks for it.
    if name == "from_recipe":
        return importlib.import_module("segrl.integrations").from_recipe
    raise AttributeError(f"module 'segrl.rewards' has no attribute {name!r}")
