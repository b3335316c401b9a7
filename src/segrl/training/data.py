"""Examples as the rows that TRL trains on, made on access and laid out for exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl import answers
from segrl.coordinates import convert
from segrl.errors import RecipeError
from segrl.masks import to_rle
from segrl.policies import PolicySettings, messages, prepare_image
from segrl.types import Example, Frame, MaskPrompt

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]


class Reader:
    """How one policy is asked about an example, and what the right answer would be in its words.

    answer_format: name of the format. frame_for: original (width, height) → the policy's frame.
    render_prompt: chat messages → the text that the policy reads, up to where its answer begins.
    """

    def __init__(
        self,
        settings: PolicySettings,
        answer_format: str,
        frame_for: Callable[[tuple[int, int]], Frame],
        render_prompt: Callable[[list[dict[str, Any]]], str],
    ) -> None:
        self.settings, self.frame_for, self.render_prompt = settings, frame_for, render_prompt
        self.format = answers.get(answer_format).worded(settings.prompt_template)

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
        """The answer that says these mask prompts (in any known frame) of an image, in the policy's words.

        Without `reasoning` it says where each of them is. Raises ValueError for what the format cannot say.
        """
        from segrl.datasets.gold import default_reasoning

        frame = self.frame_for(image_wh)
        theirs = [convert(prompt, frame, image_wh) for prompt in prompts]
        return self.format.render(theirs, reasoning or default_reasoning(theirs))

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
        plain texts then.
        """
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


def spread(n: int, wanted: int | None) -> list[int]:
    """`wanted` indices below `n`, evenly spread; all of them for None or too many.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    if wanted is None or wanted >= n:
        return list(range(n))
    return [round(i) for i in np.linspace(0, n - 1, wanted)]


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
