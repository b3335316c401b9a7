"""A recipe's reward as one callable, the same engine that `segrl train` uses.

Another trainer gives the ground truth as a text: either the name of an example of the recipe's own data set, as
`RecipeReward.rows` gives it

    17:COD10K-CAM-1-Aquatic-1-BatFish-2

(its place and, so that another data set or sample is noticed, its id), or a line of segrl's JSON Lines
layout (`segrl.datasets.json_lines`), whose paths are relative to a root that they may not leave:

    {"image": "photos/a.jpg", "query": "the dog", "mask": {"size": [480, 640], "counts": "PPYo1…"}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.datasets.drawing import mask_file
from segrl.datasets.json_lines import parse_line, read_line
from segrl.errors import DataError, RecipeError
from segrl.loading import WEIGHTLESS
from segrl.policies import prepare_image
from segrl.rewards.engine import Completions, RewardBatch
from segrl.training.parts import Parts, lazy_dataset
from segrl.training.recipe import Recipe, load_stages
from segrl.types import Example

if TYPE_CHECKING:
    from datasets import Dataset


KEPT = 64
"""Examples kept in memory: a group's completions ask for one, and the next update for the same again."""


class Truths:
    """Texts → examples. load_examples: the recipe's data set, asked for when first named. root: where paths begin."""

    def __init__(self, load_examples: Callable[[], Sequence[Example]], root: Path) -> None:
        self._load_examples, self._root = load_examples, root.resolve()
        self._examples: Sequence[Example] | None = None
        self.example = lru_cache(maxsize=KEPT)(self._read)

    @property
    def examples(self) -> Sequence[Example]:
        """The recipe's data set."""
        if self._examples is None:
            self._examples = self._load_examples()
        return self._examples

    def name(self, index: int) -> str:
        """The text that stands for the example at `index`."""
        return f"{index}:{self.examples[index].id}"

    def _read(self, text: str) -> Example:
        """Raises DataError for a text that is neither form, and for an example that is not there."""
        return self._line(text) if text.lstrip().startswith("{") else self._named(text)

    def _named(self, text: str) -> Example:
        place, colon, wanted = text.partition(":")
        if not colon or not place.isascii() or not place.isdigit():
            raise DataError(f"a ground truth is PLACE:ID or a JSON object, not {_brief(text)}")
        if int(place) >= len(self.examples):
            raise DataError(f"ground truth {_brief(text)}: the recipe's data set has {len(self.examples)} examples")
        example = self.examples[int(place)]
        if example.id != wanted:
            raise DataError(f"ground truth {_brief(text)}: at that place the recipe's data set has {example.id!r}")
        return example

    def _line(self, text: str) -> Example:
        line = parse_line(text, f"ground truth {_brief(text)}", 0, self._root)
        masks = [mask_file(mask, line.where) for mask in (*line.masks, line.ignore)]
        for path in [line.image, *(self._root / mask for mask in masks if mask is not None)]:
            if not _resolved(path, line.where).is_relative_to(self._root):
                raise DataError(f"{line.where}: {path} is outside {self._root}")
        return read_line(line, self._root)


def _resolved(path: Path, where: str) -> Path:
    try:
        return path.resolve()
    except (ValueError, OSError) as error:  # a NUL, or a name that is too long
        raise DataError(f"{where}: {str(path)!r:.80} is no path: {error}") from error


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


Read = tuple[str, bool, int]
"""A completion's text, whether it was cut off, and its tokens."""


def from_recipe(
    path: Path | str, overrides: Iterable[str] = (), *, stage: str | None = None, device: str | None = None
) -> RecipeReward:
    """The reward of a recipe file: `GRPOTrainer(reward_funcs=from_recipe("recipes/sam_r1.yaml"), …)`.

    overrides: as on the command line. stage: which of the recipe's stages; needed where more than one
    has a reward. device: where the segmenter runs, if it is a SAM (default: the process's own GPU).
    The policy's weights are not loaded, only its configuration and processor. Raises RecipeError,
    ModelError or DataError for what the recipe gets wrong.
    """
    return RecipeReward(_rewarded(path, overrides, stage), device=device)


def _rewarded(path: Path | str, overrides: Iterable[str], stage: str | None) -> Recipe:
    """The recipe of the stage that has a reward."""
    found = {one.name: one.recipe for one in load_stages(path, overrides) if one.recipe.method == "grpo"}
    if stage is not None and stage in found:
        return found[stage]
    if stage is not None or len(found) != 1:
        said = f"no stage {stage!r} with a reward" if stage is not None else "not one stage with a reward"
        raise RecipeError(f"{path} has {said}; it has {', '.join(filter(None, found)) or 'none'}: name one as stage")
    return next(iter(found.values()))


class RecipeReward:
    """A callable as TRL takes it: completions and a column `ground_truth` in, weighted sums out.

    `ground_truth` is a text (see `segrl.integrations.recipe_reward`); `rows` and `dataset` give those of the
    recipe's own data. Loads the segmenter once; not for several threads at a time.
    """

    __name__ = "segrl"

    def __init__(self, recipe: Recipe, *, device: str | None = None) -> None:
        if recipe.segmenter is not None and device is not None and recipe.segmenter.name not in WEIGHTLESS:
            options = {**recipe.segmenter.model_dump(), "device": device}
            recipe = recipe.model_copy(update={"segmenter": type(recipe.segmenter)(**options)})
        parts = Parts(recipe)
        self.recipe, self.policy, self.engine = recipe, parts.policy, parts.engine
        root = recipe.dataset.options.get("root", ".")
        self.truths = Truths(lambda: parts.examples, Path(root))

    def __call__(
        self,
        completions: Sequence[Any],
        *,
        ground_truth: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One weighted sum per completion; None where no term applies.

        completions: texts, or chats that end with the answer. completion_ids: read instead of the
        texts where a trainer gives them, since they say what was cut off. columns: TRL's
        `log_metric` gets each term's mean and the gIoU; the rest is ignored.
        """
        if completion_ids is None:
            reads = [self.read(text_of(one)) for one in completions]
        else:
            reads = [self.policy.read(ids) for ids in completion_ids]
        batch = self.score_reads(reads, ground_truth)
        if "log_metric" in columns:
            _log(batch, columns["log_metric"])
        return batch.totals

    def score(
        self, texts: Sequence[str], ground_truth: Sequence[str], truncated: Sequence[bool] | None = None
    ) -> RewardBatch:
        """Rollouts, terms and sums of texts. truncated: which were cut off, where the caller knows."""
        cut = [False] * len(texts) if truncated is None else truncated
        reads = [self.read(text, truncated=one) for text, one in zip(texts, cut, strict=True)]
        return self.score_reads(reads, ground_truth)

    def score_reads(self, reads: Sequence[Read], ground_truth: Sequence[str]) -> RewardBatch:
        """The same for completions that have been read already."""
        examples = [self.truths.example(text) for text in ground_truth]
        return self.engine.score(
            Completions(
                texts=[text for text, _, _ in reads],
                truncated=[cut for _, cut, _ in reads],
                n_tokens=[n for _, _, n in reads],
                example_ids=[example.id for example in examples],
                images=[example.image for example in examples],
                image_ids=[example.image_id for example in examples],
                targets=[example.targets for example in examples],
                ignores=[example.ignore for example in examples],
                queries=[example.query for example in examples],
            )
        )

    def read(self, text: str, *, truncated: bool = False) -> Read:
        """A decoded completion as training reads one: cut at the first end token, if special tokens were kept,
        with the <think> that the chat template wrote before it."""
        tokenizer = self.policy.processor.tokenizer
        ends = [end for end in (tokenizer.eos_token, tokenizer.pad_token) if end and end in text]
        kept = text[: min(text.index(end) for end in ends)] if ends else text
        n_tokens = len(tokenizer(kept, add_special_tokens=False)["input_ids"])
        return self.policy.opening + kept, truncated and not ends, n_tokens

    def rows(self) -> Iterator[dict[str, Any]]:
        """The recipe's data for another trainer's files: `image` (as the policy is shown it), `system` (or None),
        `prompt` (the text beside the image), `query` and `ground_truth`, in the order of the data set."""
        settings, reader = self.policy.settings, self.policy.reader
        for index, example in enumerate(self.truths.examples):
            yield {
                "image": prepare_image(example.image, settings),
                "system": settings.system,
                "prompt": example.meta.get("prompt_text") or reader.format.prompt(example.query),
                "query": example.query,
                "ground_truth": f"{index}:{example.id}",
            }

    def dataset(self) -> Dataset:
        """The recipe's data as TRL's trainers take them: `prompt`, `image`, `ground_truth`; made on access."""
        import numpy as np

        reader, examples = self.policy.reader, self.truths.examples

        def row(index: int) -> dict[str, Any]:
            image = prepare_image(examples[index].image, reader.settings)
            return {"prompt": reader.prompt(examples[index]), "image": image, "ground_truth": self.truths.name(index)}

        places: Any = range(len(examples))  # a row needs its example's place, which the example does not know
        make: Any = row
        return lazy_dataset(places, np.arange(len(examples)), make, keep=0)


def text_of(completion: Any) -> str:
    """The text of a completion: a text itself, or the last message of a chat (its content, or its content's texts)."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _log(batch: RewardBatch, log_metric: Any) -> None:
    for name, values in batch.values.items():
        applying = [value for value in values if value is not None]
        if applying:
            log_metric(f"segrl/{name}", sum(applying) / len(applying))
    log_metric("giou", sum(rollout.score.iou for rollout in batch.rollouts) / len(batch.rollouts))
