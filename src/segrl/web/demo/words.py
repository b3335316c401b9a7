"""What the page says of an answer, in words that leave no doubt whether something was found."""

from __future__ import annotations

from html import escape

from segrl.pipeline import Result
from segrl.types import Status

NOTHING_YET = "Choose a picture, say what to look for, and press Ask."


def line(kind: str, text: str) -> str:
    """A line that screen readers announce. kind: `busy`, `found`, `none`, `unread`, or `idle`."""
    return f'<p class="segrl-line segrl-{kind}" role="status">{text}</p>'


def of_result(result: Result, *, edited: bool = False) -> str:
    """The line about a result; after an edit it speaks of the hand-made prompts."""
    query = f"“{escape(result.query)}”"
    if edited:
        return line("found", f"Edited by hand: {_count(result)}, {result.mask.mean():.1%} of the picture.")
    if result.status is Status.OK and result.mask.any():
        return line("found", f"{_count(result)} for {query}, {result.mask.mean():.1%} of the picture.")
    if result.status is Status.OK:
        return line("unread", f"The model pointed at something for {query}, but the mask came out empty.")
    if result.status is Status.NO_TARGET:
        return line("none", f"Nothing here: the model says that nothing in this picture fits {query}.")
    why = escape(result.answer.detail) or result.status.value.replace("_", " ")
    return line("unread", f"The model's answer could not be read ({why}). So there is no mask.")


def _count(result: Result) -> str:
    n = len(result.masks)
    return "1 object" if n == 1 else f"{n} objects"


def history_entry(number: int, query: str, results: tuple[Result, ...]) -> str:
    """One line of the history."""
    found = {Status.OK: "", Status.NO_TARGET: " · nothing here"}
    notes = {found.get(result.status, " · not read") or f" · {_count(result)}" for result in results}
    return f"{number}. {query if len(query) <= 60 else query[:59] + '…'}{''.join(sorted(notes))}"
