"""Examples → records over the one road, and records → metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from segrl import metrics
from segrl.errors import DataError
from segrl.evaluation.inference import Decoding, Look, look
from segrl.evaluation.measures import measures
from segrl.evaluation.records import EvalRecord
from segrl.masks import to_rle
from segrl.policies import MAX_NEW_TOKENS
from segrl.types import Example, Score

if TYPE_CHECKING:
    from segrl.policies import Policy
    from segrl.text_to_masks import TextToMasks

OnProgress = Callable[[Sequence[EvalRecord], int], None]
"""Called after each batch with all records so far and the number of examples."""

_WINDOW = 8  # batches handed to the policy at once, so that it can put equal lengths together


def window_size(batch_size: int) -> int:
    """Examples that are open, and answered, together."""
    return 1 if batch_size == 1 else batch_size * _WINDOW


def evaluate(
    policy: Policy,
    text_to_masks: TextToMasks,
    examples: Sequence[Example],
    *,
    batch_size: int = 1,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_progress: OnProgress | None = None,
) -> list[EvalRecord]:
    """Greedy answers of `policy` to every example, read and scored by `road`; one record each, in order.

    batch_size: sequences generated together; 1 means that no answer can depend on another example.
    Images are opened a few batches at a time, so memory does not grow with the data set.
    """
    decoding = Decoding(max_new_tokens, batch_size)
    records: list[EvalRecord] = []
    step = window_size(batch_size)
    for start in range(0, len(examples), step):
        window = [examples[i] for i in range(start, min(start + step, len(examples)))]
        records += evaluate_window(policy, text_to_masks, window, decoding)
        if on_progress is not None:
            on_progress(records, len(examples))
    return records


def evaluate_window(
    policy: Policy, text_to_masks: TextToMasks, window: Sequence[Example], decoding: Decoding, *, saliency: bool = False
) -> list[EvalRecord]:
    """Records of a few examples answered together. saliency: measure what only the field of saliency asks for too."""
    from segrl import scoring

    images, queries = [example.image for example in window], [example.query for example in window]
    looks = look(policy, text_to_masks, images, queries, [example.image_id for example in window], decoding)
    segmentations = [one.segmentation for one in looks]
    truths = [example.truth for example in window]
    scores = scoring.score(segmentations, truths, [example.ignore for example in window])
    return [_record(*row, saliency) for row in zip(window, looks, scores, strict=True)]


def _record(example: Example, seen: Look, score: Score, saliency: bool) -> EvalRecord:
    answer, completion = seen.segmentation.answer, seen.completion
    return EvalRecord(
        id=example.id,
        image_id=example.image_id,
        tags=dict(example.tags),
        query=example.query,
        text=completion.text,
        reasoning=answer.reasoning,
        detail=answer.detail,
        prompts=answer.prompts,
        mask=to_rle(seen.segmentation.union.cpu().numpy()),
        truth=to_rle(example.truth),
        tokens=completion.n_tokens,
        seconds=completion.seconds,
        truncated=completion.truncated,
        measures=measures(example, seen.segmentation, saliency=saliency),
        samples=seen.samples,
        **dataclasses.asdict(score),
    )


def summarize(records: Sequence[EvalRecord]) -> dict[str, Any]:
    """`segrl.metrics.summarize` of the records: each metric with its interval, overall and by kind."""
    return metrics.summarize([_sample(record) for record in records])


def compare(before: Sequence[EvalRecord], after: Sequence[EvalRecord]) -> dict[str, Any]:
    """`segrl.metrics.compare` of two runs over the same examples: each gain with its paired interval.

    Raises DataError if the runs do not hold the same examples in the same order.
    """
    if [record.id for record in before] != [record.id for record in after]:
        raise DataError("the two evaluations hold other examples: compare runs over the same data set and split")
    return metrics.compare([_sample(record) for record in before], [_sample(record) for record in after])


def _sample(record: EvalRecord) -> metrics.Sample:
    return metrics.Sample(record.score, record.image_id, record.kind)
