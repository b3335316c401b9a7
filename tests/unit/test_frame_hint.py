"""Numbers in the wrong frame are noticed (CASES 5)."""

from __future__ import annotations

import pytest

from segrl.coordinates import frame_hint
from segrl.policies.frames import frame_rule
from segrl.policies.settings import PolicySettings
from segrl.types import ORIGINAL, RELATIVE_1000, Answer, Frame, MaskPrompt, Status

WH = (640, 480)


def said(*prompts: MaskPrompt) -> Answer:
    return Answer(Status.OK, prompts)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (MaskPrompt((0.1, 0.05, 0.23, 0.41), frame=RELATIVE_1000), 'frame="relative_1"'),
        (MaskPrompt(None, ((0.5, 0.5),), (1,), frame=ORIGINAL), "between 0 and 1"),
        (MaskPrompt((100, 100, 900, 900), frame=ORIGINAL), "numbers up to 900 lie beyond the frame of 640×480"),
        (MaskPrompt((100, 100, 900, 900), frame=ORIGINAL), 'frame="relative_1000"'),
        (MaskPrompt((100, 100, 1500, 400), frame=RELATIVE_1000), "which frame the policy writes"),
        (MaskPrompt((10, 10, 600, 400), frame=Frame.resized(112, 84)), 'they would fit frame="original"'),
    ],
)
def test_other_frames_are_noticed(prompt: MaskPrompt, words: str) -> None:
    hint = frame_hint(said(prompt), WH)
    assert words in hint
    assert "\n" not in hint


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(Status.NO_TARGET),
        Answer(Status.BAD_VALUES),
        said(MaskPrompt((100, 100, 900, 900), frame=RELATIVE_1000)),
        said(MaskPrompt((0, 0, 1005, 1000), frame=RELATIVE_1000)),
        said(MaskPrompt((0.1, 0.2, 0.5, 0.9), frame=Frame.resized(1, 1))),
        said(MaskPrompt((0, 0, 1, 1), frame=ORIGINAL), MaskPrompt((5, 5, 9, 9), frame=ORIGINAL)),
    ],
)
def test_numbers_in_their_frame_give_no_hint(answer: Answer | None) -> None:
    assert frame_hint(answer, WH) == ""


def test_the_frame_of_shares_can_be_chosen() -> None:
    assert frame_rule("any", PolicySettings(frame="relative_1"))(WH) == Frame.resized(1, 1)
