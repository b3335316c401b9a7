"""The embedded default: synthetic scenes and a tiny policy with its weights. No GPU, no download."""

from __future__ import annotations

from pathlib import Path


def policy_dir() -> Path:
    """Directory of the shipped cold-started policy, in the ordinary `from_pretrained` layout."""
    return Path(__file__).parent / "weights"
