"""Our smart_resize against the one that Qwen2-VL, Qwen2.5-VL and Qwen3-VL checkpoints load."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segrl.coordinates import smart_resize
from segrl.errors import FrameError

SIDES = st.one_of(st.integers(1, 5000), st.integers(1, 60))
LIMITS = st.sampled_from([(56 * 56, 28 * 28 * 1280), (65536, 16777216), (4 * 28 * 28, 16384 * 28 * 28), (1, 200_000)])


@pytest.fixture(scope="module")
def theirs() -> Callable[..., tuple[int, int]]:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    return smart_resize


@settings(max_examples=500, deadline=None)
@given(SIDES, SIDES, st.sampled_from((28, 32)), LIMITS)
@example(10, 1000, 28, (56 * 56, 28 * 28 * 1280))  # a side that rounds to nothing
@example(14, 42, 28, (56 * 56, 28 * 28 * 1280))  # halves round to even
@example(1, 200, 28, (56 * 56, 28 * 28 * 1280))
@example(1, 201, 28, (56 * 56, 28 * 28 * 1280))
def test_equal_to_transformers(
    theirs: Callable[..., tuple[int, int]], height: int, width: int, factor: int, limits: tuple[int, int]
) -> None:
    low, high = limits
    try:
        expected = theirs(height, width, factor=factor, min_pixels=low, max_pixels=high)
    except ValueError:
        with pytest.raises(FrameError):
            smart_resize((height, width), factor=factor, min_pixels=low, max_pixels=high)
    else:
        assert smart_resize((height, width), factor=factor, min_pixels=low, max_pixels=high) == expected
