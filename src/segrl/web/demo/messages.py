"""What the page says of an answer, in words that leave no doubt whether something was found."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from segrl.result import Result
from segrl.types import Status

DRAW = "Draw a box or put a point on an object, or say what to look for and press Ask."
NOTHING_YET = "Choose a picture, say what to look for, and press Ask."
ABOUT = {
    "tiny": "A toy that ships with segrl. It knows drawn coloured shapes like the examples, no photographs.",
    "tiny-fresh": "The toy before any training: it has learned nothing, and its answers can hardly be read.",
}
"""What a visitor must know of a policy before believing its answers."""

SAME = 0.8
"""IoU from which masks are called alike."""


def line(kind: str, text: str) -> str:
    """A line that screen readers announce. kind: `busy`, `found`, `none`, `unread`, or `idle`."""
    return f'<p class="segrl-line segrl-{kind}" role="status">{text}</p>'


def of_result(result: Result, *, edited: bool = False) -> str:
    """The line about a result; after an edit it speaks of the hand-made prompts."""
    query = f"“{escape(result.query)}”"
    if edited and not result.mask.any():
        return line("none", "Edited by hand: nothing is marked.")
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


def history_entry(number: int, query: str, answers: Sequence[tuple[str, Result]]) -> str:
    """One line of the history. answers: each policy's name and result; names are told where they differ."""
    told = [(name, _outcome(result)) for name, result in answers]
    outcomes = dict.fromkeys(outcome for _, outcome in told)
    short = query if len(query) <= 60 else query[:59] + "…"
    if len(outcomes) == 1:
        return f"{number}. {short}: {next(iter(outcomes))}"
    return f"{number}. {short}: " + ", ".join(f"{name} {outcome}" for name, outcome in told)


def _outcome(result: Result) -> str:
    if result.status is Status.OK:
        return _count(result)
    return "nothing here" if result.status is Status.NO_TARGET else "not readable"


def agreement(results: Sequence[Result | None]) -> str:
    """The line about two or more answers beside each other; empty while one is missing."""
    told = [result for result in results if result is not None]
    if len(told) < 2 or len(told) < len(results):
        return ""
    found = [result for result in told if result.mask.any()]
    if not found:
        return line("same", "None of the policies found anything.")
    if len(found) < len(told):
        return line("differs", f"They disagree: {len(found)} of {len(told)} policies found something.")
    together = np.logical_and.reduce([result.mask for result in found]).sum()
    either = np.logical_or.reduce([result.mask for result in found]).sum()
    kind, verdict = _verdict(together / either)
    shared = f"of everything that they marked, {together / either:.0%} was marked by {_all(len(found))}"
    return line(kind, f"{verdict}: {shared}.")


def _verdict(iou: float) -> tuple[str, str]:
    if iou >= SAME:
        return "same", "They agree"
    return ("partly", "They agree in part") if iou > 0 else ("differs", "They marked different places")


def _all(n: int) -> str:
    return "both" if n == 2 else "all"
