"""Chat messages and completions: what goes into a chat model and what comes out of it.

Cold start, reinforcement learning and evaluation all build their messages here and read
completions here, so that the three can never drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from segrl.files import legible

if TYPE_CHECKING:
    from PIL import Image

Message = dict[str, Any]

_OPEN_THINK = re.compile(r"<think>\s*\Z")


def messages(image: Image.Image | None, text: str, system: str | None = None, *, shown: bool = True) -> list[Message]:
    """The chat that asks `text` about an image: the system prompt if there is one, the image, the text.

    `image` None leaves the placeholder `{"type": "image"}`, which TRL fills from its image column;
    `shown` False leaves the image out. Half a surrogate pair, which no tokenizer takes, becomes an escape.

    >>> messages(None, "Segment the cup.")
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Segment the cup.'}]}]
    """
    picture: Message = {"type": "image"} if image is None else {"type": "image", "image": image}
    user = {"role": "user", "content": [*([picture] if shown else []), {"type": "text", "text": legible(text)}]}
    if system is None:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, user]


def render_chat(processor: Any, chat: Sequence[Message]) -> str:
    """The exact text that a model reads of a chat, up to where its answer begins."""
    return str(processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def rendered(processor: Any, text: str, system: str | None = None) -> str:
    """The exact text that a model is sent when it is asked `text` about an image, whose place its template marks."""
    return render_chat(processor, messages(None, text, system))


_ANSWER = "segrl-answer"


def turn_suffix(render: Callable[[list[Message]], str], words: str) -> str:
    """What stands between a policy's text and its next one, when a picture and `words` answer it.

    The end of its message, the message with the picture's place and the words, and the head of the next answer.
    render: chat messages → the text that the model reads, up to where its answer begins. An answer is never rendered
    again in a longer chat, so that a template that drops reasoning from the past changes nothing.
    """
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "-"}]},
        {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
        *messages(None, words),
    ]
    return render(chat).rpartition(_ANSWER)[2]


def transcript(opening_prompt: str, exchanges: Sequence[tuple[str, str]]) -> str:
    """The text that a model reads after some turns: the first prompt, then each answer with the suffix behind it.

    exchanges: (answer, `turn_suffix`). An opening <think> that the template wrote stands once.
    """
    text = opening_prompt
    for answer, suffix in exchanges:
        text += answer.removeprefix(opened_think(text)) + suffix
    return text


def without_control(tokenizer: Any, text: str, kept: Collection[str] = ()) -> str:
    """A text without the tokens in which a model would see another image or the end of a turn, but for `kept`."""
    for token in tokenizer.all_special_tokens:
        if token not in kept:
            text = text.replace(token, "")
    return text


def opened_think(rendered_prompt: str) -> str:
    """The `<think>` (with the space behind it) that a chat template wrote at the end of a prompt, or "".

    It belongs to the answer although the model did not generate it. A template that also closes
    the tag (thinking switched off) opened nothing.

    >>> opened_think("<|im_start|>assistant\\n<think>\\n")
    '<think>\\n'
    """
    match = _OPEN_THINK.search(rendered_prompt)
    return match.group() if match else ""


def read_completion(tokenizer: Any, token_ids: Sequence[int], *, opening: str = "") -> tuple[str, bool, int]:
    """Generated token ids → (text, truncated, tokens generated).

    The ids are cut at the first end token (the tokenizer's EOS or padding token); without one the
    completion is truncated. Special tokens before it stay in the text. `opening` is what
    `opened_think` found, put in front.
    """
    ends = end_token_ids(tokenizer)
    ids = list(token_ids)
    cut = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids if cut is None else ids[:cut]
    text = tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return opening + text, cut is None, len(ids) if cut is None else cut + 1


def end_token_ids(tokenizer: Any) -> frozenset[int]:
    """The ids at which a completion ends: the tokenizer's EOS token and, where it has one, its padding token."""
    return frozenset(i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None)
