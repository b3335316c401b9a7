"""The exact text that a policy is sent, without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segrl import answers
from segrl.policies.chat import rendered
from segrl.policies.checkpoint import base_of, processor_place
from segrl.policies.frames import family_of
from segrl.policies.published import published, published_settings
from segrl.policies.settings import (
    PolicySettings,
    answer_format_of,
    is_served,
    model_name,
    read_settings,
    refuse_code,
)


@dataclass(frozen=True)
class ShownPrompt:
    """text: what the model is sent. frame: one of FRAME_NAMES, None where it was not looked up.

    input_wh: what images are squashed to, None for their own size.
    """

    text: str
    answer_format: str
    frame: str | None
    input_wh: tuple[int, int] | None


def shown_prompt(
    policy: str, query: str, *, answer_format: str | None = None, plain: bool = False, base: str | None = None
) -> ShownPrompt:
    """What `policy` (a name for `policies.load`) is sent when it is asked `query` about an image.

    With the chat template of the policy's own processor, in which the image's place is marked; plain:
    the system prompt, an empty line and the text prompt, which needs neither processor nor hub. That is all
    that is shown of a model behind a server, and of a published checkpoint that is not on this machine. base: as in
    `policies.loading.load`.
    Raises SegrlError for what cannot be loaded and for an answer format that there is not.
    """
    from segrl.tiny import resolve_policy

    served = is_served(policy)
    name = model_name(policy) if served else resolve_policy(policy)
    if plain or served or (published(name) is not None and not _is_here(name)):
        settings = read_settings(name) if Path(name, "segrl.json").is_file() else published_settings(name)
        refuse_code(settings, name, trusted=answer_format is not None)
        return _shown(settings.override(answer_format=answer_format), query, settings.frame, family_of(name))
    from transformers import AutoConfig

    from segrl.policies.frames import frame_name
    from segrl.policies.loading import find_settings, load_processor

    settings, below = find_settings(name, base), base_of(name, base)
    refuse_code(settings, name, trusted=answer_format is not None)
    settings = settings.override(answer_format=answer_format)
    processor = load_processor(name if below is None else processor_place(name, below))
    family = AutoConfig.from_pretrained(below or name).model_type
    return _shown(settings, query, frame_name(family, settings), family, processor)


def _is_here(name: str) -> bool:
    """Whether the checkpoint is a directory, or was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)


def _shown(
    settings: PolicySettings, query: str, frame: str | None, family: str, processor: object = None
) -> ShownPrompt:
    chosen = answers.get(answer_format_of(settings, family))
    prompt = chosen.worded(settings.prompt_template).limited_to(settings.queries).prompt(query)
    plain = f"{settings.system}\n\n{prompt}" if settings.system else prompt
    text = plain if processor is None else rendered(processor, prompt, settings.system)
    return ShownPrompt(text, chosen.name, frame, settings.input_wh)
