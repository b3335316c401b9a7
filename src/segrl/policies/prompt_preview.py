"""The exact text that a policy is sent, without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segrl import answers
from segrl.policies.chat import rendered
from segrl.policies.names import is_served, model_name
from segrl.policies.published import published_settings
from segrl.policies.settings import DEFAULT_ANSWER_FORMAT, PolicySettings, read_settings


@dataclass(frozen=True)
class ShownPrompt:
    """text: what the model is sent. frame: one of FRAME_NAMES, None where it was not looked up.

    input_wh: what images are squashed to, None for their own size.
    """

    text: str
    answer_format: str
    frame: str | None
    input_wh: tuple[int, int] | None


def shown_prompt(policy: str, query: str, *, answer_format: str | None = None, plain: bool = False) -> ShownPrompt:
    """What `policy` (a name for `policies.load`) is sent when it is asked `query` about an image.

    With the chat template of the policy's own processor, in which the image's place is marked; plain:
    the system prompt, an empty line and the text prompt, which needs neither processor nor hub, and is
    all that is known of a model behind a server. Raises SegrlError for what cannot be loaded and for an
    answer format that there is not.
    """
    from segrl.tiny import resolve_policy

    served = is_served(policy)
    name = model_name(policy) if served else resolve_policy(policy)
    if plain or served:
        settings = read_settings(name) if Path(name, "segrl.json").is_file() else published_settings(name)
        return _shown(settings.override(answer_format=answer_format), query, settings.frame)
    from transformers import AutoConfig

    from segrl.policies.frames import frame_name
    from segrl.policies.loading import find_settings, load_processor

    settings = find_settings(name).override(answer_format=answer_format)
    processor = load_processor(name)
    frame = frame_name(AutoConfig.from_pretrained(name).model_type, settings)
    return _shown(settings, query, frame, processor)


def _shown(settings: PolicySettings, query: str, frame: str | None, processor: object = None) -> ShownPrompt:
    chosen = answers.get(settings.answer_format or DEFAULT_ANSWER_FORMAT)
    prompt = chosen.prompt(query)
    plain = f"{settings.system}\n\n{prompt}" if settings.system else prompt
    text = plain if processor is None else rendered(processor, prompt, settings.system)
    return ShownPrompt(text, chosen.name, frame, settings.input_wh)
