"""Frames: round trips, clipping, the one rounding rule, the one door to original pixels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrl.coordinates import (
    clip_box,
    clip_point,
    convert,
    frame_size_wh,
    smart_resize,
    to_lattice,
    to_original,
)
from segrl.errors import FrameError
from segrl.types import ORIGINAL, RELATIVE_1000, UNKNOWN_FRAME, Answer, Box, Frame, MaskPrompt, Status

SIDES = st.integers(1, 5000)
SIZES = st.tuples(SIDES, SIDES)
FRAMES = st.one_of(st.just(ORIGINAL), st.just(RELATIVE_1000), SIZES.map(lambda wh: Frame.resized(*wh)))
UNIT = st.floats(0, 1)


@st.composite
def prompts(draw: st.DrawFn, frame: Frame, image_wh: tuple[int, int]) -> MaskPrompt:
    """A mask prompt that lies in the image, in `frame`."""
    w, h = frame_size_wh(frame, image_wh)
    (x1, x2), (y1, y2) = (sorted(draw(st.tuples(UNIT, UNIT))) for _ in range(2))
    box = (x1 * w, y1 * h, max(x2, x1 + 0.01) * w, max(y2, y1 + 0.01) * h)
    points = draw(st.lists(st.tuples(UNIT, UNIT).map(lambda p: (p[0] * w, p[1] * h)), max_size=4))
    labels = draw(st.lists(st.sampled_from((0, 1)), min_size=len(points), max_size=len(points)))
    return MaskPrompt(box, tuple(points), tuple(labels), frame)


def numbers(prompt: MaskPrompt) -> list[float]:
    return [*(prompt.box_xyxy or ()), *(v for point in prompt.points_xy for v in point)]


@given(st.data(), SIZES, FRAMES, FRAMES)
def test_round_trip_between_frames(data: st.DataObject, image_wh: tuple[int, int], start: Frame, via: Frame) -> None:
    prompt = data.draw(prompts(start, image_wh))
    there = convert(prompt, via, image_wh)
    back = convert(there, start, image_wh)
    assert there.frame == via
    assert back.frame == start
    assert back.labels == prompt.labels
    assert numbers(back) == pytest.approx(numbers(prompt), abs=1e-6)


@given(st.data(), SIZES, FRAMES)
def test_rounding_in_the_frame_moves_at_most_one_of_its_pixels(
    data: st.DataObject, image_wh: tuple[int, int], frame: Frame
) -> None:
    prompt = data.draw(prompts(ORIGINAL, image_wh))
    size_wh = frame_size_wh(frame, image_wh)
    for number in (0, 1):
        one = image_wh[number] / size_wh[number]
        for point in prompt.points_xy:
            written = to_lattice(point[number] / one)
            assert abs(written * one - point[number]) <= one


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ORIGINAL, (100, 50, 200, 100)),
        (Frame.resized(200, 200), (400, 100, 800, 200)),
        (RELATIVE_1000, (80, 20, 160, 40)),
    ],
)
def test_to_original_of_an_image_that_is_not_square(frame: Frame, expected: tuple[float, ...]) -> None:
    answer = Answer(Status.OK, (MaskPrompt((100, 50, 200, 100), ((100, 50),), (1,), frame),))
    prompt = to_original(answer, (800, 400)).prompts[0]
    assert prompt.box_xyxy == pytest.approx(expected)
    assert prompt.points_xy[0] == pytest.approx(expected[:2])
    assert prompt.frame == ORIGINAL


def test_to_original_clips() -> None:
    prompt = MaskPrompt((-5, 10, 1000, 60), ((-3, 70), (99.5, 20)), (1, 0), ORIGINAL)
    clipped = to_original(Answer(Status.OK, (prompt,)), (100, 50)).prompts[0]
    assert clipped.box_xyxy == (0, 10, 100, 50)
    assert clipped.points_xy == ((0, 49), (99, 20))
    assert clipped.labels == (1, 0)


BEYOND = Frame.resized(1, 1)


@pytest.mark.parametrize(
    ("box", "frame"),
    [
        ((100, 0, 110, 10), ORIGINAL),
        ((0, 50, 10, 60), ORIGINAL),
        ((-10, 0, 0, 10), ORIGINAL),
        ((0, -9, 10, 0), ORIGINAL),
        ((1e308, 0, 1.7e308, 10), BEYOND),  # infinite once converted
        ((0, 0, 5e-324, 10), Frame.resized(1000, 500)),  # too small for a float once converted
    ],
)
def test_a_box_that_is_empty_on_the_image_is_bad_values(box: Box, frame: Frame) -> None:
    good = MaskPrompt((0, 0, 10, 10), frame=ORIGINAL)
    answer = Answer(Status.OK, (good, MaskPrompt(box, frame=frame)), "because", parts=frozenset({"bbox"}))
    result = to_original(answer, (100, 50))
    assert result.status is Status.BAD_VALUES
    assert result.prompts == ()
    assert (result.reasoning, result.parts) == ("because", {"bbox"})
    assert "100×50" in result.detail


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_to_original_leaves_answers_without_prompts(status: Status) -> None:
    answer = Answer(status, detail="x")
    assert to_original(answer, (10, 10)) is answer


def test_an_unknown_frame_is_refused() -> None:
    prompt = MaskPrompt((1, 1, 2, 2))
    with pytest.raises(FrameError, match="have no frame"):
        to_original(Answer(Status.OK, (prompt,)), (10, 10))
    with pytest.raises(FrameError):
        convert(prompt, ORIGINAL, (10, 10))
    with pytest.raises(FrameError):
        convert(prompt, UNKNOWN_FRAME, (10, 10))
    with pytest.raises(FrameError):
        convert(MaskPrompt((1, 1, 2, 2), frame=ORIGINAL), UNKNOWN_FRAME, (10, 10))


FINITE = st.floats(-1e9, 1e9)


@given(FINITE, FINITE, FINITE, FINITE, SIZES)
def test_clip_box_is_the_intersection(x: float, y: float, w: float, h: float, image_wh: tuple[int, int]) -> None:
    box = (x, y, x + abs(w), y + abs(h))
    clipped = clip_box(box, image_wh)
    if clipped is None:
        assert box[2] <= 0 or box[3] <= 0 or x >= image_wh[0] or y >= image_wh[1] or x == box[2] or y == box[3]
    else:
        assert 0 <= clipped[0] < clipped[2] <= image_wh[0]
        assert 0 <= clipped[1] < clipped[3] <= image_wh[1]
        assert clip_box(clipped, image_wh) == clipped


@given(FINITE, FINITE, SIZES)
def test_clip_point_is_on_a_pixel(x: float, y: float, image_wh: tuple[int, int]) -> None:
    cx, cy = clip_point((x, y), image_wh)
    assert 0 <= cx <= image_wh[0] - 1
    assert 0 <= cy <= image_wh[1] - 1
    assert clip_point((cx, cy), image_wh) == (cx, cy)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 1), (1.5, 2), (2.5, 3), (-0.5, 0), (-0.6, -1), (0.49, 0), (7, 7), (1e300, int(1e300))]
)
def test_to_lattice(value: float, expected: int) -> None:
    assert to_lattice(value) == expected
    assert type(to_lattice(value)) is int


@given(st.floats(-1e9, 1e9))
def test_to_lattice_is_nearest(value: float) -> None:
    assert abs(to_lattice(value) - value) <= 0.5 + 1e-7


@given(SIZES, st.sampled_from((28, 32)))
def test_smart_resize_keeps_its_promises(image_hw: tuple[int, int], factor: int) -> None:
    low, high = 56 * 56, 1280 * 28 * 28
    if max(image_hw) > 200 * min(image_hw):
        with pytest.raises(FrameError, match="too narrow"):
            smart_resize(image_hw, factor=factor, min_pixels=low, max_pixels=high)
        return
    height, width = smart_resize(image_hw, factor=factor, min_pixels=low, max_pixels=high)
    assert height % factor == 0 < height
    assert width % factor == 0 < width
    assert height * width >= low
    assert height * width <= high or factor in (height, width)


def test_smart_resize_leaves_the_squashes_of_the_papers() -> None:
    low, high = 56 * 56, 1280 * 28 * 28
    assert smart_resize((840, 840), factor=28, min_pixels=low, max_pixels=high) == (840, 840)
    assert smart_resize((768, 768), factor=28, min_pixels=low, max_pixels=high) == (756, 756)
    assert smart_resize((1024, 1024), factor=28, min_pixels=low, max_pixels=2**24) == (1036, 1036)
