"""From images and queries to answers with masks: one completion, a vote of several, a second look, or turns.

Plain: one greedy completion, its masks. Vote: several sampled completions, put together by `vote`. Second look: where
something was found, the region around it is cut out, asked about again at the resolution that the policy gives a
whole image, and the answer laid back. Turns: the mask of an answer goes back as a picture, until the policy is done or
has had its turns. The samples of one question share what the policy can share of reading it, and the image's embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.coordinates import mapped
from segrl.errors import DataError, SegrlError
from segrl.inference.decoding import Decoding, Reply, ask
from segrl.inference.vote import VoteRule, vote
from segrl.masks import mask_to_box
from segrl.policies import MAX_NEW_TOKENS, Chat, Completion, ConversingPolicy, Exchange, Policy
from segrl.turns import MAX_TURNS, Conversation, Turn, TurnView, feedback, take

if TYPE_CHECKING:
    from PIL import Image

    from segrl.text_to_masks import TextToMasks
    from segrl.types import Segmentation


def answer(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    image_ids: Sequence[str],
    decoding: Decoding,
) -> list[Reply]:
    """One answer for each image and query, in order; image_ids equal exactly for equal images.

    Where `text_to_masks` bounds the pixels of an answer's masks, the bound is of all that one question takes at once
    (`Decoding.held`). Raises DataError for an image of which not one mask fits into it; then nothing was generated.
    """
    text_to_masks = _within_bounds(text_to_masks, images, decoding)
    if decoding.turns > 1:
        return _talked(policy, text_to_masks, images, queries, image_ids, decoding)
    groups = ask(policy, text_to_masks, images, queries, decoding)
    if decoding.samples > 1:
        return [
            _voted(text_to_masks, group, image, image_id, decoding.vote)
            for group, image, image_id in zip(groups, images, image_ids, strict=True)
        ]
    completions = [group[0] for group in groups]
    found = text_to_masks.read(
        [one.text for one in completions],
        images,
        image_ids=image_ids,
        truncated=[one.truncated for one in completions],
    )
    replies = [Reply(one, segmentation) for one, segmentation in zip(completions, found, strict=True)]
    return look_again(policy, text_to_masks, images, queries, decoding, replies) if decoding.second_look else replies


def _within_bounds(text_to_masks: TextToMasks, images: Sequence[Image.Image], decoding: Decoding) -> TextToMasks:
    """The same with each answer's share of the bound."""
    share = text_to_masks.shared_by(decoding.held)
    most = share.max_mask_pixels
    for width, height in (image.size for image in images):
        if most is not None and decoding.held > 1 and width * height > most:
            raise DataError(
                f"{decoding.title}: the masks of an image of {width}×{height} pixels are more than are made at once; "
                "ask for less, or send a smaller image"
            )
    return share


def _voted(
    text_to_masks: TextToMasks, group: Sequence[Completion], image: Image.Image, image_id: str, rule: VoteRule
) -> Reply:
    """The vote over one question's completions. Their masks are in memory for this question alone."""
    texts, truncated = [one.text for one in group], [one.truncated for one in group]
    found = text_to_masks.read_samples(texts, image, image_id=image_id, truncated=truncated)
    chosen, segmentation = vote(found, rule)
    tokens, seconds = sum(one.n_tokens for one in group), sum(one.seconds for one in group)
    whole = replace(group[chosen], n_tokens=tokens, seconds=seconds)
    return Reply(whole, segmentation, tuple(one.text for one in group))


def _talked(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    image_ids: Sequence[str],
    decoding: Decoding,
) -> list[Reply]:
    conversations = talk(
        policy,
        text_to_masks,
        [Conversation(image, query) for image, query in zip(images, queries, strict=True)],
        turns=decoding.turns,
        view=view_of(policy),
        max_new_tokens=decoding.max_new_tokens or MAX_NEW_TOKENS,
        image_ids=image_ids,
        batch_size=decoding.batch_size,
        temperature=decoding.heat,
        seed=decoding.seed,
    )
    return [_of_turns(conversation.turns) for conversation in conversations]


def _of_turns(turns: tuple[Turn, ...]) -> Reply:
    """What stands at the end, with the text that it came from and what all turns took."""
    last = turns[-1]
    told = next((turn for turn in turns if turn.own is last.stands), last)
    n_tokens, seconds = sum(turn.n_tokens for turn in turns), sum(turn.seconds for turn in turns)
    return Reply(Completion(told.text, told.truncated, n_tokens, seconds), last.stands, turns=turns)


CONTEXT = 2.0
"""Sides of the second look's region, in sides of what was found."""

SMALLEST = 1 / 3
"""Sides of the region at least, as a share of the image's."""

WHOLE = 0.8
"""A region that holds more of the image than this shows nothing new, and is not cropped."""


def look_again(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    decoding: Decoding,
    replies: Sequence[Reply],
) -> list[Reply]:
    """The answers with those put in their place that a nearer look gave: a mask that touches the first one's."""
    regions = [_region(one.segmentation, image.size) for one, image in zip(replies, images, strict=True)]
    again = [i for i, region in enumerate(regions) if region is not None]
    if not again:
        return list(replies)
    crops = [images[i].crop(_corners(regions[i])) for i in again]
    groups = ask(policy, text_to_masks, crops, [queries[i] for i in again], decoding)
    seconds = [group[0] for group in groups]
    read = text_to_masks.read([c.text for c in seconds], crops, truncated=[c.truncated for c in seconds])
    result, most = list(replies), text_to_masks.max_mask_pixels
    for i, completion, segmentation in zip(again, seconds, read, strict=True):
        if most is not None and len(segmentation.masks) * images[i].width * images[i].height > most:
            segmentation = replace(segmentation, masks=segmentation.masks[:0])
        result[i] = _merge(replies[i], completion, _laid_back(segmentation, _corners(regions[i]), images[i].size))
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
    prompts = tuple(mapped(prompt, lambda x, y: (x + x1, y + y1)) for prompt in segmentation.answer.prompts)
    return replace(segmentation, answer=replace(segmentation.answer, prompts=prompts), masks=masks)


def _merge(first: Reply, completion: Completion, second: Segmentation) -> Reply:
    texts = (first.completion.text, completion.text)
    tokens = first.completion.n_tokens + completion.n_tokens
    seconds = first.completion.seconds + completion.seconds
    is_better = bool(np.any((second.union & first.segmentation.union.cpu()).numpy()))
    told = completion if is_better else first.completion
    kept = second if is_better else first.segmentation
    return Reply(replace(told, n_tokens=tokens, seconds=seconds), kept, texts)


def view_of(policy: Policy) -> TurnView:
    """What a policy is shown after a turn: as it was trained, or the outline with an instruction."""
    settings = getattr(policy, "settings", None)
    return TurnView() if settings is None else settings.view


def check_turns(policy: Policy, turns: int) -> int:
    """The number. Raises SegrlError for one out of 1 to MAX_TURNS, and for a policy that takes one request only."""
    if type(turns) is not int or not 1 <= turns <= MAX_TURNS:
        raise SegrlError(f"turns is a whole number from 1 to {MAX_TURNS}, not {turns!r}")
    if turns > 1 and not isinstance(policy, ConversingPolicy):
        raise SegrlError(f"{type(policy).__name__} answers single requests only: give it one turn, or a method `reply`")
    return turns


def talk(
    policy: Policy,
    text_to_masks: TextToMasks,
    conversations: Sequence[Conversation],
    *,
    turns: int,
    view: TurnView,
    max_new_tokens: int,
    image_ids: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    **sampling: Any,
) -> list[Conversation]:
    """The conversations with further turns, until each is over or has `turns` of them, those of a person counted.

    image_ids: as `TextToMasks.read` takes them. prompts: the text prompts, without them the answer format's for each
    query. sampling: further options of `Policy.generate`. Each image is encoded once as long as the segmenter's
    cache holds those of the batch. Raises SegrlError as `check_turns`.
    """
    check_turns(policy, turns)
    asked = prompts or [text_to_masks.answer_format.prompt(one.query) for one in conversations]
    now = list(conversations)
    for _ in range(turns):
        open_ = [i for i, one in enumerate(now) if not one.is_over and len(one.turns) < turns]
        if not open_:
            break
        completions = _next(policy, [now[i] for i in open_], [asked[i] for i in open_], view, max_new_tokens, sampling)
        taken = take(
            text_to_masks,
            [now[i] for i in open_],
            [one.text for one in completions],
            truncated=[one.truncated for one in completions],
            image_ids=None if image_ids is None else [image_ids[i] for i in open_],
            continues=view.continues,
        )
        for i, conversation, completion in zip(open_, taken, completions, strict=True):
            last = replace(conversation.turns[-1], n_tokens=completion.n_tokens, seconds=completion.seconds)
            now[i] = replace(conversation, turns=(*conversation.turns[:-1], last))
    return now


def _next(
    policy: Policy,
    conversations: Sequence[Conversation],
    prompts: Sequence[str],
    view: TurnView,
    max_new_tokens: int,
    sampling: dict[str, Any],
) -> list[Completion]:
    """The next text of each conversation; a policy that takes single requests only is asked the first alone."""
    if isinstance(policy, ConversingPolicy):
        chats = [chat_of(one, prompt, view) for one, prompt in zip(conversations, prompts, strict=True)]
        return [group[0] for group in policy.reply(chats, max_new_tokens=max_new_tokens, **sampling)]
    images = [one.image for one in conversations]
    return [group[0] for group in policy.generate(images, prompts, max_new_tokens=max_new_tokens, **sampling)]


def chat_of(conversation: Conversation, prompt: str, view: TurnView) -> Chat:
    """What the policy reads before its next turn; a turn that a person took stands there like its own."""
    exchanges = []
    for i, turn in enumerate(conversation.turns):
        so_far = replace(conversation, turns=conversation.turns[: i + 1])
        exchanges.append(Exchange(turn.text, *feedback(so_far, view)))
    return Chat(conversation.image, prompt, tuple(exchanges))
