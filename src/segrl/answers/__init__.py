"""Text ⇄ mask prompts: what a policy is asked, and what its answer means.

`parse` never raises on
any text, takes time linear in its length, never rounds, and yields numbers in the policy's own frame.
"""

from __future__ import annotations

from segrl.answers.base import AnswerFormat, own_format
from segrl.answers.concept import Concept, Words
from segrl.answers.json_formats import JsonList, SamR1, SegZero, Think2Seg
from segrl.answers.mask_prompts import default_reasoning, own_points
from segrl.answers.native import NATIVE_FORMATS, Gemini, InternVL, Molmo, QwenJson, QwenTokens
from segrl.answers.seg_r1 import PointsOnly, SegR1
from segrl.answers.turns import DONE, Move, follow, says_done
from segrl.errors import SegrlError
from segrl.plugins import PREFIX
from segrl.text import did_you_mean
from segrl.types import UNKNOWN_FRAME, Answer, Frame, Reading

__all__ = [
    "DONE",
    "NATIVE_FORMATS",
    "AnswerFormat",
    "Move",
    "Reading",
    "default_reasoning",
    "follow",
    "get",
    "names",
    "own_points",
    "parse",
    "says_done",
]

_PAPERS = (SegR1(), SamR1(), PointsOnly(), JsonList(), SegZero(), Think2Seg())
_NATIVE = (QwenTokens(), QwenJson(), InternVL(), Molmo(), Gemini())
_WORDS = (Concept(), Words())
_FORMATS: dict[str, AnswerFormat] = {form.name: form for form in (*_PAPERS, *_NATIVE, *_WORDS)}


def names() -> tuple[str, ...]:
    """The names of all answer formats."""
    return tuple(_FORMATS)


def get(name: str) -> AnswerFormat:
    """The answer format called `name`, or `python:my_package.MyFormat` for one of one's own (`own_format`).

    Raises SegrlError that names the nearest for one that does not exist.
    """
    if name.startswith(PREFIX):
        return own_format(name)
    if name not in _FORMATS:
        raise SegrlError(f"no answer format {name!r}: {did_you_mean(name, _FORMATS)} There are {', '.join(_FORMATS)}")
    return _FORMATS[name]


def parse(
    text: str,
    answer_format: str,
    *,
    truncated: bool = False,
    frame: Frame = UNKNOWN_FRAME,
    reading: Reading = "strict",
) -> Answer:
    """The answer that `text` gives in the format called `answer_format`.

    truncated: the completion was cut off at the token limit. frame: what the policy's coordinates
    mean; the mask prompts carry it, and without it nothing converts them. reading: to the letter of the
    format, or lenient (`AnswerFormat.parse`). No text raises; an unknown format is a SegrlError.

    >>> parse("<bbox>[1, 2, 3.5, 4]</bbox>", "seg-r1").prompts[0].box_xyxy
    (1.0, 2.0, 3.5, 4.0)
    >>> parse("<bbox>[1, 2, 3.5, 4", "seg-r1", reading="lenient").repairs
    ('the strict reading refuses it: <bbox> is never closed',)
    """
    return get(answer_format).parse(text, truncated=truncated, frame=frame, reading=reading)
