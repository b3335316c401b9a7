"""From images and queries to answers with masks: plainly, or with one of the test-time options.

Plain: one greedy completion, its masks. Vote: several sampled completions, and a pixel belongs to the
mask if more than half of the masks hold it. Second look: where something was found, the region around
it is cut out, asked about again at the resolution that the policy gives a whole image, and the
answer laid back.

`read_leniently` is the reading beside the strict one that counts: what a person who wants masks would get from the same
texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.masks import mask_to_box
from segrl.policies import MAX_NEW_TOKENS, Completion
from segrl.policies.turns import talk, view_of
from segrl.turns import Conversation, Turn
from segrl.types import Answer, Box, Example, MaskPrompt, Status

if TYPE_CHECKING:
    from PIL import Image

    from segrl.policies import Policy
    from segrl.text_to_masks import TextToMasks
    from segrl.types import Segmentation


CONTEXT = 2.0
"""Sides of the second look's region, in sides of what was found."""

SMALLEST = 1 / 3
"""Sides of the region at least, as a share of the image's."""

PLAIN = "plain decoding"
"""What run.json says of a result without test-time options."""

WHOLE = 0.8
"""A region that holds more of the image than this shows nothing new, and is not cropped."""

_WINDOW = 8  # batches handed to the policy at once, so that it can put equal lengths together


def window_size(batch_size: int) -> int:
    """Examples that are open, and answered, together."""
    return 1 if batch_size == 1 else batch_size * _WINDOW


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; every field determines the result.

    max_new_tokens: None is what fits the policy in `EvalSettings`, and MAX_NEW_TOKENS elsewhere.
    samples: completions voted over (1: none). temperature: of the samples; 0 is greedy. second_look:
    see the module. batch_size: sequences generated together. turns: answers of a conversation at most; after each the
    policy is shown its mask (`segrl.turns`).
    """

    max_new_tokens: int | None = None
    batch_size: int = 1
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    second_look: bool = False
    turns: int = 1

    @property
    def title(self) -> str:
        """The test-time options in a few words; empty for plain decoding."""
        if self.turns > 1:
            return f"at most {self.turns} turns"
        if self.samples > 1:
            return f"majority vote of {self.samples} samples at temperature {self.temperature:g}"
        sampled = f"one sample at temperature {self.temperature:g}" if self.temperature else ""
        return ", ".join(filter(None, [sampled, "second look" if self.second_look else ""]))


@dataclass(frozen=True)
class Look:
    """One query's answer: the completion that stands for it, its masks, and all texts if there were several."""

    completion: Completion
    segmentation: Segmentation
    samples: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()


def look(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    image_ids: Sequence[str],
    decoding: Decoding,
) -> list[Look]:
    """One answer for each image and query, in order; image_ids equal exactly for equal images."""
    if decoding.turns > 1:
        return _talk(policy, text_to_masks, images, queries, image_ids, decoding)
    groups = _ask(policy, text_to_masks, images, queries, decoding)
    flat = [(i, completion) for i, group in enumerate(groups) for completion in group]
    read = iter(
        text_to_masks.read(
            [completion.text for _, completion in flat],
            [images[i] for i, _ in flat],
            image_ids=[image_ids[i] for i, _ in flat],
            truncated=[completion.truncated for _, completion in flat],
        )
    )
    looks = [_vote([Look(completion, next(read)) for completion in group]) for group in groups]
    return _look_again(policy, text_to_masks, images, queries, decoding, looks) if decoding.second_look else looks


def _talk(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    image_ids: Sequence[str],
    decoding: Decoding,
) -> list[Look]:
    conversations = talk(
        policy,
        text_to_masks,
        [Conversation(image, query) for image, query in zip(images, queries, strict=True)],
        turns=decoding.turns,
        view=view_of(policy),
        max_new_tokens=decoding.max_new_tokens or MAX_NEW_TOKENS,
        image_ids=image_ids,
        batch_size=decoding.batch_size,
        temperature=decoding.temperature,
        seed=decoding.seed,
    )
    return [_of_turns(conversation.turns) for conversation in conversations]


def _of_turns(turns: tuple[Turn, ...]) -> Look:
    """What stands at the end, with the text that it came from and what all turns took."""
    last = turns[-1]
    told = next((turn for turn in turns if turn.own is last.stands), last)
    n_tokens, seconds = sum(turn.n_tokens for turn in turns), sum(turn.seconds for turn in turns)
    return Look(Completion(told.text, told.truncated, n_tokens, seconds), last.stands, turns=turns)


def _ask(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    decoding: Decoding,
) -> list[list[Completion]]:
    options: dict[str, Any] = {} if decoding.temperature == 0 else {
        "temperature": decoding.temperature,
        "seed": decoding.seed,
    }  # fmt: skip
    if decoding.samples > 1:
        options["num_samples"] = decoding.samples
    return policy.generate(
        images,
        [text_to_masks.answer_format.prompt(query) for query in queries],
        max_new_tokens=decoding.max_new_tokens or MAX_NEW_TOKENS,
        batch_size=decoding.batch_size,
        **options,
    )


def _vote(looks: Sequence[Look]) -> Look:
    """One answer from several to the same query.

    Answers that could not be read have no vote. "Nothing there" wins if more answers say so than
    give a mask. Otherwise a pixel belongs to the mask if more than half of the masks hold it; the
    text and the prompts shown are those of the answer whose mask is nearest to that. Where none
    could be read the first stands.
    """
    if len(looks) == 1:
        return looks[0]
    completions = [one.completion for one in looks]
    by_status = {
        s: [one for one in looks if one.segmentation.answer.status is s] for s in (Status.OK, Status.NO_TARGET)
    }
    found, nothing = by_status[Status.OK], by_status[Status.NO_TARGET]
    chosen = looks[0] if not found and not nothing else nothing[0] if len(nothing) > len(found) else _majority(found)
    whole = dataclasses.replace(
        chosen.completion,
        n_tokens=sum(one.n_tokens for one in completions),
        seconds=sum(one.seconds for one in completions),
    )
    return Look(whole, chosen.segmentation, tuple(one.text for one in completions))


def _majority(looks: Sequence[Look]) -> Look:
    import torch

    from segrl.scoring import iou

    masks = torch.stack([one.segmentation.union for one in looks])
    mask = 2 * masks.sum(dim=0) > len(looks)
    nearest = looks[int(iou(masks, mask).argmax())]
    return Look(nearest.completion, dataclasses.replace(nearest.segmentation, masks=mask[None], scores=None))


def _look_again(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    decoding: Decoding,
    looks: Sequence[Look],
) -> list[Look]:
    """The answers with those put in their place that a nearer look gave: a mask that touches the first one's."""
    regions = [_region(one.segmentation, image.size) for one, image in zip(looks, images, strict=True)]
    again = [i for i, region in enumerate(regions) if region is not None]
    if not again:
        return list(looks)
    crops = [images[i].crop(_corners(regions[i])) for i in again]
    groups = _ask(policy, text_to_masks, crops, [queries[i] for i in again], decoding)
    seconds = [group[0] for group in groups]
    read = text_to_masks.read([c.text for c in seconds], crops, truncated=[c.truncated for c in seconds])
    result = list(looks)
    for i, completion, segmentation in zip(again, seconds, read, strict=True):
        result[i] = _merge(looks[i], completion, _laid_back(segmentation, _corners(regions[i]), images[i].size))
    return result


def _corners(region: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    assert region is not None  # those without one are not cropped
    return region


def _region(segmentation: Segmentation, image_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole pixels `(x1, y1, x2, y2)` around what was found; None where nothing was, or nothing new would be seen."""
    box = mask_to_box(segmentation.union.cpu().numpy())
    if box is None:
        return None
    (x1, x2), (y1, y2) = (_span(box[i], box[i + 2], image_wh[i]) for i in (0, 1))
    covers = (x2 - x1) * (y2 - y1) / (image_wh[0] * image_wh[1])
    return (x1, y1, x2, y2) if covers <= WHOLE else None


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """The stretch of one side that the second look takes, moved into the image rather than cut."""
    length = min(max(CONTEXT * (high - low), SMALLEST * side), side)
    start = min(max((low + high - length) / 2, 0), side - length)
    return round(start), max(round(start) + 1, round(start + length))


def _laid_back(
    segmentation: Segmentation, region: tuple[int, int, int, int], image_wh: tuple[int, int]
) -> Segmentation:
    """An answer about a region as one about the whole image."""
    import torch

    x1, y1, x2, y2 = region
    masks = torch.zeros((len(segmentation.masks), image_wh[1], image_wh[0]), dtype=torch.bool)
    masks[:, y1:y2, x1:x2] = segmentation.masks.cpu()
    prompts = tuple(_moved(prompt, x1, y1) for prompt in segmentation.answer.prompts)
    answer: Answer = dataclasses.replace(segmentation.answer, prompts=prompts)
    return dataclasses.replace(segmentation, answer=answer, masks=masks)


def _moved(prompt: MaskPrompt, dx: int, dy: int) -> MaskPrompt:
    old = prompt.box_xyxy
    box: Box | None = None if old is None else (old[0] + dx, old[1] + dy, old[2] + dx, old[3] + dy)
    return dataclasses.replace(prompt, box_xyxy=box, points_xy=tuple((x + dx, y + dy) for x, y in prompt.points_xy))


def _merge(first: Look, completion: Completion, second: Segmentation) -> Look:
    texts = (first.completion.text, completion.text)
    tokens = first.completion.n_tokens + completion.n_tokens
    seconds = first.completion.seconds + completion.seconds
    is_better = bool(np.any((second.union & first.segmentation.union.cpu()).numpy()))
    told = completion if is_better else first.completion
    kept = second if is_better else first.segmentation
    return Look(dataclasses.replace(told, n_tokens=tokens, seconds=seconds), kept, texts)


def read_leniently(
    text_to_masks: TextToMasks, looks: Sequence[Look], window: Sequence[Example], decoding: Decoding
) -> list[Mapping[str, Any] | None]:
    """What `EvalRecord.lenient` holds of each answer. Masks are made only where the two readings differ.

    None for answers of several texts (a vote, a second look, turns), and where the first reading was lenient already.
    """
    from segrl import scoring

    if text_to_masks.reading != "strict" or decoding.samples > 1 or decoding.second_look or decoding.turns > 1:
        return [None] * len(looks)
    lenient = dataclasses.replace(text_to_masks, reading="lenient")
    places = [i for i, one in enumerate(looks) if _differs(lenient, one, window[i].image.size)]
    read = lenient.read(
        [looks[i].completion.text for i in places],
        [window[i].image for i in places],
        image_ids=[window[i].image_id for i in places],
        truncated=[looks[i].completion.truncated for i in places],
    )
    scores = scoring.score(read, [window[i].truth for i in places], [window[i].ignore for i in places])
    found: list[Mapping[str, Any] | None] = [{} for _ in looks]
    for i, one, score in zip(places, read, scores, strict=True):
        numbers = {key: value for key, value in dataclasses.asdict(score).items() if key != "target_area"}
        found[i] = {**numbers, "status": score.status.value, "repairs": list(one.answer.repairs)}
    return found


def _differs(lenient: TextToMasks, one: Look, image_wh: tuple[int, int]) -> bool:
    """Whether the lenient reading may give another answer: it parses another, or the strict one failed on the image."""
    frame, completion = lenient.frame_for(image_wh), one.completion
    strict = one.segmentation.written
    answer = lenient.answer_format.parse(
        completion.text, truncated=completion.truncated, frame=frame, reading=lenient.reading
    )
    return answer != strict or (not answer.status.is_failure and one.segmentation.answer.status.is_failure)
