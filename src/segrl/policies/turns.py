"""Asks a policy turn after turn: its mask goes back as a picture, until it is done or has had its turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segrl.errors import SegrlError
from segrl.policies.base import Chat, Completion, ConversingPolicy, Exchange, Policy
from segrl.turns import MAX_TURNS, Conversation, TurnView, feedback, take

if TYPE_CHECKING:
    from segrl.text_to_masks import TextToMasks


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
    """What the policy reads before its next turn. A turn that a person took is told in their place, without a text."""
    exchanges = []
    for i, turn in enumerate(conversation.turns):
        so_far = replace(conversation, turns=conversation.turns[: i + 1])
        exchanges.append(Exchange(turn.text, *feedback(so_far, view)))
    return Chat(conversation.image, prompt, tuple(exchanges))
