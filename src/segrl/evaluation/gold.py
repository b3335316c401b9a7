"""The ceiling of a segmenter on a data set: gold mask prompts, written and read like any answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segrl import answers
from segrl.datasets.gold import gold_prompts
from segrl.datasets.images import content_id
from segrl.evaluation.evaluate import evaluate
from segrl.evaluation.records import EvalRecord
from segrl.policies import ScriptedPolicy
from segrl.types import ORIGINAL, Example

if TYPE_CHECKING:
    from PIL import Image

    from segrl.segmenters import Segmenter


def evaluate_gold(examples: Sequence[Example], segmenter: Segmenter, answer_format: str = "seg-r1") -> list[EvalRecord]:
    """Records of gold answers in whole original pixels: what a policy that points ideally would get.

    The mask prompts are an example's `meta["prompts"]`, or made from its targets. They go through
    the text and the road as a policy's do. Raises DataError for a target without a pixel.
    """
    from segrl.road import Road

    written = answers.get(answer_format)
    texts = {}
    for example in examples:
        text = written.render(gold_prompts(example), str(example.meta.get("reasoning", "")))
        texts[_key(example.image, written.prompt(example.query))] = text
    policy = ScriptedPolicy(texts, key=_key, answer_format=written.name, frame=ORIGINAL)
    return evaluate(policy, Road(written, policy.frame_for, segmenter), examples)


def _key(image: Image.Image, prompt: str) -> str:
    return f"{content_id(image)} {prompt}"
