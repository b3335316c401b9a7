"""What is drawn over a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segrl.overlay import COLOURS, draw
from segrl.result import Result
from segrl.types import ORIGINAL, RELATIVE_1000, Answer, MaskPrompt, Status

GREY = Image.new("RGB", (60, 40), (100, 100, 100))


def changed(drawn: Image.Image) -> np.ndarray:
    return np.any(np.array(drawn) != 100, axis=2)


def test_masks_are_tinted_and_nothing_else() -> None:
    masks = np.zeros((2, 40, 60), dtype=bool)
    masks[0, 5:15, 5:25] = masks[1, 20:35, 30:55] = True
    drawn = draw(GREY, masks)
    assert np.array_equal(changed(drawn), masks.any(axis=0))
    assert drawn.getpixel((5, 5)) == COLOURS[0]
    assert drawn.getpixel((30, 20)) == COLOURS[1]
    assert drawn.getpixel((12, 10)) not in (COLOURS[0], (100, 100, 100))
    assert not changed(GREY).any()


def test_boxes_and_points_lie_where_they_were_asked() -> None:
    prompt = MaskPrompt((10, 10, 30, 30), ((20, 20), (45, 20)), (1, 0), ORIGINAL)
    there = changed(draw(GREY, np.zeros((1, 40, 60), dtype=bool), [prompt]))
    assert there[10, 10:30].all()
    assert there[29, 10:30].all()
    assert not there[:9].any()
    assert there[20, 20]
    assert there[20, 45]
    assert not there[20, 55]


def test_a_result_draws_itself() -> None:
    nothing = Result(GREY, "a cat", "", Answer(Status.NO_TARGET), np.zeros((0, 40, 60), dtype=bool))
    assert not changed(nothing.overlay()).any()


def test_other_sizes_and_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="masks of"):
        draw(GREY, np.zeros((1, 60, 40), dtype=bool))
    with pytest.raises(ValueError, match="original pixels"):
        draw(GREY, np.zeros((1, 40, 60), dtype=bool), [MaskPrompt((1, 1, 2, 2), frame=RELATIVE_1000)])
