"""A completion while it is written: tokens from the thread that generates, text for the one that reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event
from typing import Any

import torch

from segrl.policies.chat import read_completion

_PART_OF_A_CHARACTER = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""


class _Stopped(Exception):
    """Nobody reads on: it ends generation, and is no error."""


class TokenQueue:
    """A streamer for transformers' `generate`, which calls `put` and `end`; one completion, read in another thread."""

    def __init__(self) -> None:
        self._tokens: SimpleQueue[int | None] = SimpleQueue()
        self._stopped = Event()
        self._saw_prompt = False

    def put(self, token_ids: torch.Tensor) -> None:
        """The prompt first, which is passed over, then each token. Ends generation once `stop` was called."""
        if self._stopped.is_set():
            raise _Stopped
        if self._saw_prompt:
            for token in token_ids.flatten().tolist():
                self._tokens.put(token)
        self._saw_prompt = True

    def end(self) -> None:
        """No token will come any more; may be called twice."""
        self._tokens.put(None)

    def stop(self) -> None:
        """Nobody reads on: generation ends at its next token."""
        self._stopped.set()

    def pieces(self, tokenizer: Any, opening: str) -> Iterator[str]:
        """The text in pieces as it comes, `opening` first; special tokens are kept, the end token is not."""
        return text_pieces(iter(self._tokens.get, None), tokenizer, opening)


def text_pieces(tokens: Iterable[int], tokenizer: Any, opening: str = "") -> Iterator[str]:
    """What each token adds to the text of `read_completion`; half a character waits for its other half.

    The pieces joined are the text of all tokens.
    """
    ids: list[int] = []
    told = text = opening
    if opening:
        yield opening
    for token in tokens:
        ids.append(token)
        text, _, _ = read_completion(tokenizer, ids, opening=opening)
        if not text.endswith(_PART_OF_A_CHARACTER) and len(text) > len(told):
            yield text[len(told) :]
            told = text
    if len(text) > len(told):
        yield text[len(told) :]
