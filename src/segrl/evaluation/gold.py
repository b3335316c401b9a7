"""The ceiling of a segmenter on a data set: gold mask prompts, written and read like any answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segrl import answers
from segrl.answers import AnswerFormat
from segrl.coordinates import convert
from segrl.datasets.gold import gold_prompts
from segrl.evaluation.evaluate import evaluate
from segrl.evaluation.records import EvalRecord
from segrl.policies import ScriptedPolicy
from segrl.types import ORIGINAL, Example

if TYPE_CHECKING:
    from segrl.segmenters import Segmenter


def evaluate_gold(examples: Sequence[Example], segmenter: Segmenter, answer_format: str = "seg-r1") -> list[EvalRecord]:
    """Records of gold answers in whole original pixels: what a policy that points ideally would get.

    The mask prompts are an example's `meta["prompts"]`, or made from its targets. They go through
    the text and the road as a policy's do. Raises DataError for a target without a pixel.
    """
    from segrl.text_to_masks import TextToMasks

    written = answers.get(answer_format)
    texts = {str(place): _written(example, written) for place, example in enumerate(examples)}
    places = itertools.count()
    policy = ScriptedPolicy(texts, key=lambda *_: str(next(places)), answer_format=written.name, frame=ORIGINAL)
    return evaluate(policy, TextToMasks(written, policy.frame_for, segmenter), examples)


def _written(example: Example, written: AnswerFormat) -> str:
    prompts = [convert(prompt, ORIGINAL, example.image.size) for prompt in gold_prompts(example)]
    return written.render(prompts, str(example.meta.get("reasoning", "")))
