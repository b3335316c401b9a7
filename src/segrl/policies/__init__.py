"""Policies: image and text prompt → text. Importing this package loads no torch."""

from __future__ import annotations

from typing import Any

from segrl.policies.base import Completion, Policy
from segrl.policies.chat import end_token_ids, messages, opened_think, read_completion
from segrl.policies.frames import FAMILY_FRAMES, frame_rule
from segrl.policies.scripted import ScriptedPolicy
from segrl.policies.settings import FRAME_NAMES, PolicySettings, prepare_image, read_settings, write_settings

__all__ = [
    "FAMILY_FRAMES",
    "FRAME_NAMES",
    "Completion",
    "Policy",
    "PolicySettings",
    "ScriptedPolicy",
    "end_token_ids",
    "frame_rule",
    "load",
    "messages",
    "opened_think",
    "prepare_image",
    "read_completion",
    "read_settings",
    "write_settings",
]


def load(name_or_path: str, **options: Any) -> Policy:
    """A policy by name: `tiny` (shipped with segrl), a directory, or a model's name on the hub.

    options: see `segrl.policies.loading.load`. Raises ModelError with one line that says what to do.
    """
    from segrl.policies.loading import load as load_transformers
    from segrl.tiny import resolve_policy

    return load_transformers(resolve_policy(name_or_path), **options)
