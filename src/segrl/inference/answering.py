"""From images and queries to answers with masks: one completion, a vote of several, or a second look.

Plain: one greedy completion, its masks. Vote: several sampled completions, put together by `vote`. Second look: where
something was found, the region around it is cut out, asked about again at the resolution that the policy gives a
whole image, and the answer laid back. The samples of one question share what the policy can share of reading it, and
the image's embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from segrl.inference.decoding import Decoding, Reply, ask
from segrl.inference.second_look import look_again
from segrl.inference.vote import VoteRule, vote
from segrl.policies import MAX_NEW_TOKENS, Completion
from segrl.policies.turns import talk, view_of
from segrl.turns import Conversation, Turn

if TYPE_CHECKING:
    from PIL import Image

    from segrl.policies import Policy
    from segrl.text_to_masks import TextToMasks


def answer(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    image_ids: Sequence[str],
    decoding: Decoding,
) -> list[Reply]:
    """One answer for each image and query, in order; image_ids equal exactly for equal images."""
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


def _voted(
    text_to_masks: TextToMasks, group: Sequence[Completion], image: Image.Image, image_id: str, rule: VoteRule
) -> Reply:
    """The vote over one question's completions. Their masks are in memory for this question alone."""
    found = text_to_masks.read(
        [one.text for one in group],
        [image] * len(group),
        image_ids=[image_id] * len(group),
        truncated=[one.truncated for one in group],
    )
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
