"""Reward terms over scores and answers, their weighted sum, and the adapter to TRL. Imports no torch."""

from __future__ import annotations

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
]
