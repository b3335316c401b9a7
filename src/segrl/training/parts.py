"""A recipe's parts, built: the policy's processor and settings, the road, the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from segrl.errors import ModelError
from segrl.policies import PolicySettings, frame_rule, messages, opened_think, read_completion
from segrl.policies.frames import SmartResize
from segrl.text import first_line
from segrl.text_to_masks import TextToMasks
from segrl.tiny import resolve_policy
from segrl.training.data import Reader
from segrl.training.recipe import Recipe
from segrl.types import Example


@dataclass(frozen=True)
class PolicyParts:
    """What training needs to know of a policy; TRL loads its weights from `path` itself."""

    path: str
    processor: Any
    settings: PolicySettings
    reader: Reader
    opening: str

    def read(self, token_ids: Sequence[int]) -> tuple[str, bool, int]:
        """Generated ids → (text, truncated, tokens)."""
        return read_completion(self.processor.tokenizer, token_ids, opening=self.opening)


def load_policy(recipe: Recipe) -> PolicyParts:
    """The policy's processor and settings; the recipe's `policy` and `answer_format` come before the checkpoint's own.

    The checkpoint's own are those that an evaluation of it finds (`find_settings`).

    Raises ModelError for a directory that is no policy, one without a processor, and an unknown family.
    """
    from segrl.policies.loading import find_settings

    path = resolve_policy(recipe.policy.path)
    section = recipe.policy
    settings = find_settings(path).override(
        answer_format=recipe.answer_format, frame=section.frame, input_wh=section.input_wh, system=section.system
    )
    if settings.answer_format is None:
        raise ModelError(f"{path} does not say which answer format it writes: set answer_format in the recipe")
    processor, model_type = _load_processor(path)
    frame_for = frame_rule(model_type, settings, SmartResize.of(processor))

    def render_prompt(chat: list[dict[str, Any]]) -> str:
        try:
            return str(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"the chat template of {path} cannot be used: {first_line(error)}") from error

    opening = opened_think(render_prompt(messages(None, "", settings.system)))
    reader = Reader(settings, settings.answer_format, frame_for, render_prompt)
    return PolicyParts(path, processor, settings, reader, opening)


def _load_processor(path: str) -> tuple[Any, str]:
    """The processor, which pads and cuts on the left, and the family. Raises ModelError."""
    from transformers import AutoConfig

    from segrl.policies.loading import load_processor

    processor = load_processor(path, truncation_side="left", padding_side="left")
    try:
        return processor, AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the policy {path}: {first_line(error)}") from error


def load_text_to_masks(recipe: Recipe, reader: Reader) -> TextToMasks:
    """The road from this policy's texts to masks."""
    from segrl import segmenters

    assert recipe.segmenter is not None  # Recipe refuses grpo without one
    segmenter = segmenters.load(recipe.segmenter.name, **recipe.segmenter.options)
    return TextToMasks(answer_format=reader.format, frame_for=reader.frame_for, segmenter=segmenter)


def load_examples(recipe: Recipe) -> Sequence[Example]:
    """The training examples; raises DataError as `segrl.datasets.load` does."""
    from segrl import datasets

    return datasets.load(recipe.dataset.name, **recipe.dataset.options)
