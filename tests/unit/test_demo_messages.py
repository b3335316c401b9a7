"""What the demo page says of answers, alone and side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segrl.result import Result
from segrl.types import Answer, MaskPrompt, Status
from segrl.web.demo.results import agreement, history_entry, of_result

SIDE = 10


def found(x1: int, x2: int) -> Result:
    """An answer whose mask is the columns from `x1` to before `x2`."""
    mask = np.zeros((1, SIDE, SIDE), dtype=bool)
    mask[..., x1:x2] = True
    return Result(picture(), "it", "", Answer(Status.OK, (MaskPrompt((0, 0, SIDE, SIDE)),)), mask)


def missing(status: Status, detail: str = "") -> Result:
    return Result(picture(), "<b>it</b>", "", Answer(status, detail=detail), np.zeros((0, SIDE, SIDE), dtype=bool))


def picture() -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE))


NOBODY, UNREADABLE = missing(Status.NO_TARGET), missing(Status.BAD_SYNTAX, "a bracket <is> missing")


@pytest.mark.parametrize(
    ("result", "kind", "said"),
    [
        (found(0, 5), "found", "1 object for “it”, 50.0% of the picture"),
        (NOBODY, "none", "Nothing here"),
        (missing(Status.NO_TARGET, "the segmenter finds none"), "none", "the segmenter finds none."),
        (UNREADABLE, "unread", "could not be read"),
        (found(0, 0), "unread", "came out empty"),
    ],
)
def test_what_is_said_of_an_answer(result, kind, said):
    told = of_result(result)
    assert f"segrl-{kind}" in told
    assert said in told
    assert "<b>" not in told
    assert "<is>" not in told


def test_what_was_repaired_is_listed():
    result = found(0, 5)
    assert "<details" not in of_result(result)
    repaired = replace(result, answer=replace(result.answer, repairs=tuple(f"left out: <{i}>" for i in range(30))))
    told = of_result(repaired)
    assert "1 object for" in told
    assert told.count("<li>") == 21
    assert "<li>left out: &lt;0&gt;</li>" in told
    assert "<li>and 10 more</li>" in told
    assert "<details" not in of_result(repaired, edited=True)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([found(0, 10), found(0, 9)], "They agree: of everything that they marked, 90% was marked by both"),
        ([found(0, 10), found(0, 5)], "They agree in part: of everything that they marked, 50%"),
        ([found(0, 5), found(5, 10)], "They marked different places: of everything that they marked, 0%"),
        ([found(0, 5), NOBODY], "They disagree: 1 of 2"),
        ([NOBODY, UNREADABLE], "None of the policies found anything"),
        ([found(0, 5), None], ""),
        ([found(0, 5)], ""),
    ],
)
def test_answers_side_by_side(results, said):
    told = agreement(results)
    assert said in told
    assert bool(told) == bool(said)


def test_a_line_of_the_history():
    assert history_entry(3, "it", [("a", NOBODY), ("b", NOBODY)]) == "3. it: nothing here"
    both = [("a", found(0, 5)), ("b", UNREADABLE)]
    assert history_entry(3, "x" * 99, both) == f"3. {'x' * 59}…: a 1 object, b not readable"
