"""The lenient reading beside the strict one that counts: what a person who wants masks gets from the same texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segrl.inference import Decoding, Reply
from segrl.types import Example

if TYPE_CHECKING:
    from segrl.text_to_masks import TextToMasks


def read_leniently(
    text_to_masks: TextToMasks, replies: Sequence[Reply], window: Sequence[Example], decoding: Decoding
) -> list[Mapping[str, Any] | None]:
    """What `EvalRecord.lenient` holds of each answer. Masks are made only where the two readings differ.

    None for answers of several texts (a vote, a second look, turns), and where the first reading was lenient already.
    """
    from segrl import scoring

    if text_to_masks.reading != "strict" or decoding.samples > 1 or decoding.second_look or decoding.turns > 1:
        return [None] * len(replies)
    lenient = replace(text_to_masks, reading="lenient")
    places = [i for i, one in enumerate(replies) if _differs(lenient, one, window[i].image.size)]
    read = lenient.read(
        [replies[i].completion.text for i in places],
        [window[i].image for i in places],
        image_ids=[window[i].image_id for i in places],
        truncated=[replies[i].completion.truncated for i in places],
    )
    scores = scoring.score(read, [window[i].truth for i in places], [window[i].ignore for i in places])
    found: list[Mapping[str, Any] | None] = [{} for _ in replies]
    for i, one, score in zip(places, read, scores, strict=True):
        numbers = {key: value for key, value in dataclasses.asdict(score).items() if key != "target_area"}
        found[i] = {**numbers, "status": score.status.value, "repairs": list(one.answer.repairs)}
    return found


def _differs(lenient: TextToMasks, one: Reply, image_wh: tuple[int, int]) -> bool:
    """Whether the lenient reading may give another answer: it parses another, or the strict one failed on the image."""
    frame, completion = lenient.frame_for(image_wh), one.completion
    strict = one.segmentation.written
    answer = lenient.answer_format.parse(
        completion.text, truncated=completion.truncated, frame=frame, reading=lenient.reading
    )
    return answer != strict or (not answer.status.is_failure and one.segmentation.answer.status.is_failure)
