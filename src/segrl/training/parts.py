"""A recipe's parts, each opened once: the data, the policy's processor and settings, the segmenter, the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from segrl import datasets, segmenters
from segrl.errors import ModelError
from segrl.policies import PolicySettings, frame_rule, messages, opened_think, read_completion
from segrl.policies.frames import SmartResize
from segrl.policies.settings import answer_format_of, read_template, refuse_code
from segrl.rewards.engine import RewardEngine
from segrl.segmenters import Segmenter
from segrl.text import first_line
from segrl.text_to_masks import TextToMasks
from segrl.tiny import resolve_policy
from segrl.training.data import Reader
from segrl.training.recipe import DatasetSection, Recipe
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
    found = find_settings(path)
    refuse_code(found, path, trusted=recipe.answer_format is not None)
    settings = found.override(
        answer_format=recipe.answer_format,
        frame=section.frame,
        input_wh=section.input_wh,
        system=section.system,
        prompt_template=read_template(section.prompt_template),
    )
    processor, model_type = _load_processor(path)
    answer_format = answer_format_of(settings, model_type)
    settings = settings.override(answer_format=answer_format)
    frame_for = frame_rule(model_type, settings, SmartResize.of(processor))

    def render_prompt(chat: list[dict[str, Any]]) -> str:
        try:
            return str(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"the chat template of {path} cannot be used: {first_line(error)}") from error

    opening = opened_think(render_prompt(messages(None, "", settings.system)))
    reader = Reader(settings, answer_format, frame_for, render_prompt)
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


class Parts:
    """What a recipe names, each opened when it is first asked for, and once: every stage of a run takes it from here.

    Raises DataError and ModelError as `segrl.datasets.load`, `segrl.segmenters.load` and `load_policy` do.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @cached_property
    def examples(self) -> Sequence[Example]:
        """The training examples."""
        return self._opened(self.recipe.dataset)

    @cached_property
    def eval_examples(self) -> Sequence[Example]:
        """The held-out examples, the training examples themselves where both sections are the same; none without."""
        section = self.recipe.evaluation
        if section is None:
            return ()
        return self.examples if section.dataset == self.recipe.dataset else self._opened(section.dataset)

    @cached_property
    def policy(self) -> PolicyParts:
        """The policy's processor and settings; its weights are loaded by who trains or asks it."""
        return load_policy(self.recipe)

    @cached_property
    def segmenter(self) -> Segmenter:
        """The frozen segmenter."""
        section = self.recipe.segmenter
        assert section is not None  # Recipe refuses grpo and evaluation without one
        return segmenters.load(section.name, **section.options)

    @cached_property
    def text_to_masks(self) -> TextToMasks:
        """From this policy's texts to masks."""
        reader = self.policy.reader
        return TextToMasks(answer_format=reader.format, frame_for=reader.frame_for, segmenter=self.segmenter)

    @cached_property
    def engine(self) -> RewardEngine:
        """The recipe's reward."""
        return RewardEngine(self.text_to_masks, self.recipe.terms())

    def release_segmenter(self) -> None:
        """Lets go of the segmenter, which is loaded again when it is asked for."""
        for name in ("segmenter", "text_to_masks", "engine"):
            self.__dict__.pop(name, None)

    @staticmethod
    def _opened(section: DatasetSection) -> Sequence[Example]:
        return datasets.load(section.name, **section.options)
