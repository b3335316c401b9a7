"""Examples → records over the one road, and records → metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from segrl import metrics
from segrl.errors import DataError
from segrl.evaluation.records import EvalRecord
from segrl.masks import to_rle
from segrl.types import Example, Score, Segmentation

if TYPE_CHECKING:
    from segrl.policies import Completion, Policy
    from segrl.road import Road

OnProgress = Callable[[Sequence[EvalRecord], int], None]
"""Called after each batch with all records so far and the number of examples."""

_WINDOW = 8  # batches handed to the policy at once, so that it can put equal lengths together


def evaluate(
    policy: Policy,
    road: Road,
    examples: Sequence[Example],
    *,
    batch_size: int = 1,
    max_new_tokens: int = 512,
    on_progress: OnProgress | None = None,
) -> list[EvalRecord]:
    """Greedy answers of `policy` to every example, read and scored by `road`; one record each, in order.

    batch_size: sequences generated together; 1 means that no answer can depend on another example.
    Images are opened a few batches at a time, so memory does not grow with the data set.
    """
    records: list[EvalRecord] = []
    step = 1 if batch_size == 1 else batch_size * _WINDOW
    for start in range(0, len(examples), step):
        window = [examples[i] for i in range(start, min(start + step, len(examples)))]
        records += _evaluate_window(policy, road, window, batch_size, max_new_tokens)
        if on_progress is not None:
            on_progress(records, len(examples))
    return records


def _evaluate_window(
    policy: Policy, road: Road, window: Sequence[Example], batch_size: int, max_new_tokens: int
) -> list[EvalRecord]:
    from segrl import scoring

    images = [example.image for example in window]
    prompts = [road.answer_format.prompt(example.query) for example in window]
    sampled = policy.generate(images, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
    completions = [group[0] for group in sampled]
    segmentations = road.read(
        [completion.text for completion in completions],
        images,
        image_ids=[example.image_id for example in window],
        truncated=[completion.truncated for completion in completions],
    )
    truths = [example.truth for example in window]
    scores = scoring.score(segmentations, truths, [example.ignore for example in window])
    return [_record(*row) for row in zip(window, completions, segmentations, scores, strict=True)]


def _record(example: Example, completion: Completion, segmentation: Segmentation, score: Score) -> EvalRecord:
    answer = segmentation.answer
    return EvalRecord(
        id=example.id,
        image_id=example.image_id,
        tags=dict(example.tags),
        query=example.query,
        text=completion.text,
        reasoning=answer.reasoning,
        detail=answer.detail,
        prompts=answer.prompts,
        mask=to_rle(segmentation.union.cpu().numpy()),
        truth=to_rle(example.truth),
        tokens=completion.n_tokens,
        seconds=completion.seconds,
        truncated=completion.truncated,
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
