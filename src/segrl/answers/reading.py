"""From a text to what stands after its reasoning, and from what was found there to an Answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from segrl.answers.lenient_json import LiteralError
from segrl.types import Answer, MaskPrompt, Status

_ORDER = {status: rank for rank, status in enumerate(Status)}
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Unreadable(ValueError):
    """An answer that stands there but cannot be read: BAD_SYNTAX."""


class BadValues(ValueError):
    """An answer that can be read but says what no mask prompt can: BAD_VALUES."""


@dataclass
class Found:
    """What a format found after the reasoning.

    prompts: the mask prompts. parts: as in `Answer.parts`. is_complete: the answer's last closing
    tag or bracket is there, so that a cut-off completion lost nothing of it. is_all: nothing else in the
    text could be another answer, or another object of this one. faults: everything wrong with it, in the
    order of the text.
    """

    prompts: tuple[MaskPrompt, ...] = ()
    parts: set[str] = field(default_factory=set)
    is_complete: bool = False
    is_all: bool = True
    faults: list[tuple[Status, str]] = field(default_factory=list)

    def attempt(self, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        """What `read` returns, or None with its fault noted."""
        try:
            return read(*args, **kwargs)
        except (Unreadable, LiteralError) as error:
            self.faults.append((Status.BAD_SYNTAX, str(error)))
        except BadValues as error:
            self.faults.append((Status.BAD_VALUES, str(error)))
        return None

    def to_answer(self, reasoning: str | None, truncated: bool) -> Answer:
        """The answer, with the first status in the order of `Status` that applies."""
        parts = frozenset(self.parts)
        if truncated and not self.is_complete:
            return Answer(Status.TRUNCATED, (), reasoning, "cut off before the end of the answer", parts)
        if self.faults:
            status, detail = min(self.faults, key=lambda fault: _ORDER[fault[0]])
            return Answer(status, (), reasoning, detail, parts)
        return Answer(Status.OK if self.prompts else Status.NO_TARGET, self.prompts, reasoning, "", parts)


def split_reasoning(text: str) -> tuple[str | None, str, bool]:
    """(reasoning, the text that may hold the answer, whether one think block opens and closes).

    The answer is what follows the last `</think>`, or the whole text without one, up to a
    `<think>` that is never closed: what is quoted while thinking is not the answer. The reasoning
    runs from the first `<think>` to the last `</think>` (to the end of the text if none follows),
    stripped of surrounding space; None without a `<think>`.
    """
    opened, closed = text.find("<think>"), text.rfind("</think>")
    body = text[closed + len("</think>") :] if closed >= 0 else text
    body = body.partition("<think>")[0]
    if opened < 0:
        return None, body, False
    reasoning = text[opened + len("<think>") : closed if closed > opened else None].strip()
    is_one_block = closed > opened and text.count("<think>") == text.count("</think>") == 1
    return reasoning, body, is_one_block


def tag_pattern(*names: str) -> re.Pattern[str]:
    """The pattern for `blocks`: the opening and closing tags called `names`."""
    return re.compile(f"<(/?)({'|'.join(names)})>")


def blocks(text: str, tags: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(name, content) of each tag in the order of the text; what stands between them is skipped.

    Raises Unreadable at a tag inside another, one that closes nothing, one that is never closed.
    """
    name, start = "", 0
    for tag in tags.finditer(text):
        closes, found = tag.groups()
        if not closes and not name:
            name, start = found, tag.end()
        elif closes and found == name:
            yield name, text[start : tag.start()]
            name = ""
        else:
            raise Unreadable(f"{tag[0]} where {f'</{name}>' if name else 'an opening tag'} should stand")
    if name:
        raise Unreadable(f"<{name}> is never closed")
