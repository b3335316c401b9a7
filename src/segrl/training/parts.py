"""A recipe's parts, each opened once: data, the policy's processor and settings, segmenter, reward; and TRL's rows.

Rows are made on access and laid out for exact resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2.exceptions import TemplateError

from segrl import answers, datasets, segmenters
from segrl.answers import DONE, Move
from segrl.answers.base import think_block
from segrl.coordinates import convert, to_lattice
from segrl.datasets.turns import WORDINGS, Said
from segrl.errors import ModelError, RecipeError
from segrl.masks import to_rle
from segrl.policies import (
    PolicySettings,
    frame_rule,
    messages,
    opened_think,
    prepare_image,
    read_completion,
    render_chat,
    transcript,
    turn_suffix,
)
from segrl.policies.checkpoint import base_of, processor_place
from segrl.policies.frames import SmartResize
from segrl.policies.settings import answer_format_of, read_template, refuse_code
from segrl.rewards.engine import RewardEngine
from segrl.segmenters import Segmenter
from segrl.text import first_line
from segrl.text_to_masks import TextToMasks
from segrl.tiny import resolve_policy
from segrl.training.recipe import Recipe, Stage, load_stages
from segrl.training.sections import DatasetSection
from segrl.turns import Conversation, Turn, feedback
from segrl.types import Example, Frame, MaskPrompt

if TYPE_CHECKING:
    from datasets import Dataset


Row = dict[str, Any]


class Reader:
    """How one policy is asked about an example, and what the right answer would be in its words.

    answer_format: name of the format. frame_for: original (width, height) → the policy's frame.
    render_prompt: chat messages → the text that the policy reads, up to where its answer begins. end: the token that
    ends an answer.
    """

    def __init__(
        self,
        settings: PolicySettings,
        answer_format: str,
        frame_for: Callable[[tuple[int, int]], Frame],
        render_prompt: Callable[[list[dict[str, Any]]], str],
        end: str = "",
    ) -> None:
        self.settings, self.frame_for, self.render_prompt, self.end = settings, frame_for, render_prompt, end
        self.format = answers.get(answer_format).worded(settings.prompt_template).limited_to(settings.queries)

    def prompt(self, example: Example) -> list[dict[str, Any]]:
        """The chat messages, with a placeholder where the image goes."""
        text = example.meta.get("prompt_text") or self.format.prompt(example.query)
        return messages(None, text, self.settings.system, shown=not example.meta.get("text_only"))

    def completion(self, example: Example) -> str:
        """The gold answer: `meta["completion_text"]` as it is, else rendered from gold mask prompts.

        Those are `meta["prompts"]` or, without them, made from the masks; the reasoning is
        `meta["reasoning"]` or says where each of them is.
        """
        from segrl.datasets.gold import gold_prompts

        raw = example.meta.get("completion_text")
        if raw is not None:
            return str(raw)
        return self.written(gold_prompts(example), example.image.size, str(example.meta.get("reasoning") or ""))

    def written(self, prompts: Sequence[MaskPrompt], image_wh: tuple[int, int], reasoning: str = "") -> str:
        """`AnswerFormat.written` in the policy's frame."""
        return self.format.written(prompts, self.frame_for(image_wh), image_wh, reasoning)

    def rl_row(self, example: Example) -> Row:
        """What GRPO and the reward functions need; `image` is what the policy sees, `original` what is scored."""
        return {
            "prompt": self.prompt(example),
            "image": prepare_image(example.image, self.settings),
            "original": example.image,
            "example_id": example.id,
            "image_id": example.image_id,
            "image_hw": (example.image.height, example.image.width),
            "query": example.query,
            "ground_truth": [to_rle(mask) for mask in example.targets],
            "ignore": None if example.ignore is None else to_rle(example.ignore),
            "tags": dict(example.tags),
        }

    def sft_row(self, example: Example) -> Row:
        """Prompt, gold completion and image (none for `meta["text_only"]`) as TRL's vision collator takes them.

        `meta["answer_begins"]` is given with the prompt, and the completion goes on from there; both are
        plain texts then, and so are those of `meta["turns"]` (`segrl.datasets.turns`), of which the last is learned.
        """
        if "turns" in example.meta:
            return self._turns_row(example)
        images = [] if example.meta.get("text_only") else [prepare_image(example.image, self.settings)]
        if "answer_begins" in example.meta:
            given = self.render_prompt(self.prompt(example)) + str(example.meta["answer_begins"])
            return {"prompt": given, "completion": self.completion(example), "images": images}
        completion = [{"role": "assistant", "content": [{"type": "text", "text": self.completion(example)}]}]
        return {
            "prompt": self.prompt(example),
            "completion": completion,
            "images": images,
        }

    def _turns_row(self, example: Example) -> Row:
        """A transcript: all turns but the last are given, with the pictures that answered them."""
        *past, learned = example.meta["turns"]
        images, exchanges = [example.image], []
        for said in past:
            turn = Turn("", said.move, said.stands)
            picture, words = feedback(Conversation(example.image, example.query, (turn,)), self.settings.view)
            images.append(picture)
            exchanges.append((self._said(said, example), turn_suffix(self.render_prompt, words)))
        given = transcript(self.render_prompt(self.prompt(example)), exchanges)
        completion = self._said(learned, example).removeprefix(opened_think(given))
        shown = [prepare_image(image, self.settings) for image in images]
        return {"prompt": given, "completion": completion + self.end, "images": shown}

    def _said(self, said: Said, example: Example) -> str:
        """A turn of a transcript in the policy's words."""
        if said.text is not None:
            return said.text
        words = WORDINGS[example.meta["wording"]]
        image_wh = example.image.size
        if said.move is Move.DONE:
            return f"{think_block(words['done'])} {DONE}"
        if said.move is Move.POINTS:
            theirs = [convert(prompt, self.frame_for(image_wh), image_wh) for prompt in said.prompts]
            try:
                return self.format.render(theirs, wrong_words(theirs, words))
            except ValueError:  # a format that cannot say such points alone
                return self.written(said.whole, image_wh, wrong_words(theirs, words))
        text = self.written(said.prompts, image_wh, said.reasoning)
        return text.replace("<think>", f"<think>{words['anew']}", 1) if said.anew else text


def wrong_words(prompts: Sequence[MaskPrompt], words: Mapping[str, str]) -> str:
    """What a correction says is wrong: a place for each of its points, in the policy's numbers."""
    places = [
        words["missing" if label else "too much"].format(x=to_lattice(x), y=to_lattice(y))
        for prompt in prompts
        for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True)
    ]
    return words["and"].join(places)


def layout(n: int, rows: int, seed: int) -> np.ndarray:
    """Indices of `rows` examples out of `n`: one permutation per epoch, each seeded by `seed` and the epoch."""
    epochs = [np.random.default_rng([seed, epoch]).permutation(n) for epoch in range(math.ceil(rows / n))]
    return np.concatenate(epochs)[:rows] if epochs else np.zeros(0, dtype=np.int64)


def rows_needed(config: Any, method: str, n: int, epochs: float) -> int:
    """How many examples a whole run reads: `max_steps` if that is set, else `epochs` × n.

    One GRPO rollout of `generation_batch_size` completions reads that many divided by
    `num_generations`, and serves steps_per_generation × num_iterations micro-batches. Raises
    RecipeError if that is less than one batch.
    """
    micro = config.per_device_train_batch_size * config.world_size
    accumulated = config.gradient_accumulation_steps
    if method == "grpo":
        batch, serves = config.generation_batch_size // config.num_generations, config.steps_per_generation
        serves *= config.num_iterations
    else:
        batch, serves = micro, 1
    if config.max_steps > 0:
        return math.ceil(config.max_steps * accumulated / serves) * batch
    rows = round(n * epochs)
    if rows < batch:
        raise RecipeError(f"{rows} examples are less than the {batch} of one batch: more data, epochs or max_steps")
    return rows


def lazy_dataset(examples: Sequence[Example], order: np.ndarray, row: Callable[[Example], Row], keep: int) -> Dataset:
    """A data set of `len(order)` rows that makes row i from `examples[order[i]]` when it is read.

    keep: how many rows stay in memory. GRPO reads each row once per completion and micro-batch.
    """
    from datasets import Dataset

    return Dataset.from_dict({"index": order}).with_transform(_Rows(examples, row, keep))


class _Rows:
    """The transform of a lazy data set: `{"index": [...]}` → columns."""

    def __init__(self, examples: Sequence[Example], row: Callable[[Example], Row], keep: int) -> None:
        self._made_of = (examples, row, keep)
        self._row = lru_cache(maxsize=keep)(lambda index: row(examples[index]))

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        rows = [self._row(int(index)) for index in batch["index"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Rows, self._made_of)  # what is kept does not travel


@dataclass(frozen=True)
class PolicyParts:
    """What training needs to know of a policy; TRL loads its weights from `path` itself.

    base: the model below it, if it is an adapter.
    """

    path: str
    base: str | None
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
    base = base_of(path, section.base)
    found = find_settings(path, section.base)
    refuse_code(found, path, trusted=recipe.answer_format is not None)
    settings = found.override(
        answer_format=recipe.answer_format,
        frame=section.frame,
        input_wh=section.input_wh,
        system=section.system,
        prompt_template=read_template(section.prompt_template),
    )
    processor, model_type = _load_processor(path, base)
    answer_format = answer_format_of(settings, model_type)
    turns = None if recipe.turns is None else recipe.turns.view
    settings = settings.override(answer_format=answer_format, turns=turns)
    frame_for = frame_rule(model_type, settings, SmartResize.of(processor))

    def render_prompt(chat: list[dict[str, Any]]) -> str:
        try:
            return render_chat(processor, chat)
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(f"the chat template of {path} cannot be used: {first_line(error)}") from error

    opening = opened_think(render_prompt(messages(None, "", settings.system)))
    reader = Reader(settings, answer_format, frame_for, render_prompt, processor.tokenizer.eos_token)
    return PolicyParts(path, base, processor, settings, reader, opening)


def _load_processor(path: str, base: str | None) -> tuple[Any, str]:
    """The processor, which pads and cuts on the left, and the family. Raises ModelError."""
    from transformers import AutoConfig

    from segrl.policies.loading import load_processor

    place = path if base is None else processor_place(path, base)
    processor = load_processor(place, truncation_side="left", padding_side="left")
    try:
        return processor, AutoConfig.from_pretrained(base or path).model_type
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


def open_stages(path: Path | str, overrides: Iterable[str] = ()) -> list[Stage]:
    """`load_stages`, with the data of later stages opened: what is missing is told before the first has trained.

    Raises RecipeError and DataError.
    """
    stages = load_stages(path, overrides)
    opened = _sections(stages[0].recipe)  # the first stage opens them itself
    for section in (section for stage in stages[1:] for section in _sections(stage.recipe)):
        if section not in opened:
            opened.append(section)
            Parts._opened(section)
    return stages


def _sections(recipe: Recipe) -> list[DatasetSection]:
    return [recipe.dataset, *([] if recipe.evaluation is None else [recipe.evaluation.dataset])]
