"""Policies: image and text prompt → text. Importing this package loads no torch."""

from __future__ import annotations

from os import PathLike
from typing import Any

from segrl.policies.base import (
    WORDS,
    Chat,
    Completion,
    ConversingPolicy,
    Exchange,
    Policy,
    StreamingPolicy,
    WordsPolicy,
    stream,
)
from segrl.policies.chat import (
    end_token_ids,
    messages,
    opened_think,
    read_completion,
    render_chat,
    rendered,
    transcript,
    turn_suffix,
    without_control,
)
from segrl.policies.frames import FAMILY_FRAMES, frame_rule
from segrl.policies.published import MAX_NEW_TOKENS, PUBLISHED, Published, published
from segrl.policies.settings import (
    FRAME_NAMES,
    PolicySettings,
    is_served,
    model_name,
    prepare_image,
    read_settings,
    write_settings,
)

__all__ = [
    "FAMILY_FRAMES",
    "FRAME_NAMES",
    "MAX_NEW_TOKENS",
    "PUBLISHED",
    "WORDS",
    "Chat",
    "Completion",
    "ConversingPolicy",
    "Exchange",
    "Policy",
    "PolicySettings",
    "Published",
    "StreamingPolicy",
    "WordsPolicy",
    "end_token_ids",
    "frame_rule",
    "is_served",
    "load",
    "messages",
    "model_name",
    "opened_think",
    "prepare_image",
    "published",
    "read_completion",
    "read_settings",
    "render_chat",
    "rendered",
    "stream",
    "transcript",
    "turn_suffix",
    "without_control",
    "write_settings",
]


def load(name_or_path: str | PathLike[str], **options: Any) -> Policy:
    """A policy by name: `tiny-photos` or `tiny-scenes` (shipped with segrl), a directory, a model's name on the hub,
    `openai:MODEL@http://host:port/v1` for a model behind a server, or `words` (`WordsPolicy`).

    A directory may hold a whole checkpoint or a PEFT adapter. options: see `segrl.policies.loading.load`
    and `segrl.policies.openai_policy.load`. Raises ModelError with one line that says what to do.
    """
    name = str(name_or_path)
    if is_served(name):
        return _load_served(name, options)
    if name == WORDS:
        return _load_words(options)
    from segrl.policies.loading import load as load_transformers
    from segrl.text import check_options
    from segrl.tiny import resolve_policy

    check_options(f"the policy {name}", load_transformers, options)
    return load_transformers(resolve_policy(name), **options)


def _load_served(name: str, options: dict[str, Any]) -> Policy:
    """The policy behind a server; what it computes with is the server's own affair."""
    from segrl.errors import ModelError
    from segrl.policies.openai_policy import load as load_openai

    for option in ("device", "dtype", "autocast", "merge_adapter", "base"):
        if options.pop(option, None):
            raise ModelError(f"{name}: {option} is chosen where the server is started")
    return load_openai(name, **options)


def _load_words(options: dict[str, Any]) -> Policy:
    """The policy that is no model: of the options only its own answer format means anything."""
    from segrl.errors import ModelError

    given = {key for key, value in options.items() if value is not None and value != WORDS} - {"device"}
    if given:
        raise ModelError(f"the policy words is no model: it takes no {', '.join(sorted(given))}")
    return WordsPolicy()
