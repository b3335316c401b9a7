"""What holds for every text and every mask prompt."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tries import tries

from segrl import answers
from segrl.answers.lenient_json import Literal, LiteralError, read_first, read_whole
from segrl.answers.mask_prompts import group, own_points, round_prompt
from segrl.coordinates import to_lattice
from segrl.types import UNKNOWN_FRAME, Box, Frame, MaskPrompt, Point, Status

ALL = answers.names()
NAMES = st.sampled_from(ALL)
LETTERS = st.one_of(st.characters(), st.sampled_from("[]{}(),:\"'`\\<>/0123456789eE+-. \n\ud800\udfff\x00"))
PIECES = """
<think> </think> <answer> </answer> <bbox> </bbox> <points> </points> <labels> </labels> [ ] { } ( ) , : ``` ```json " '
[1,2,3,4] [[1,2]] [1] [0,1] [] 1 -2.5 007 1e999 1e-9 . - + true None NaN Infinity x "bbox" "bbox_2d"
{"bbox":[1,2,3,4],"points":[[1,2,1]]} {"bbox_2d":[1,2,3,4],"point_2d":[1,2]} {"bbox":[1,2,3,4],"points_1":[1,2]}
"""
FRAGMENTS = st.sampled_from([*PIECES.split(), "\\", "\ud800"])
TEXTS = st.one_of(st.text(LETTERS, max_size=60), st.lists(FRAGMENTS, max_size=25).map(" ".join))
TEXTS |= st.lists(FRAGMENTS, max_size=25).map("".join)


@tries(400)
@given(TEXTS, NAMES, st.booleans())
def test_any_text_gives_an_answer(text: str, name: str, truncated: bool) -> None:
    answer = answers.parse(text, name, truncated=truncated)
    whole = answers.parse(text, name)
    assert whole.status is not Status.TRUNCATED
    assert answer == whole or answer.status is Status.TRUNCATED
    assert bool(answer.detail) == answer.status.is_failure
    assert answer.detail.isprintable()
    assert answer.parts <= {"think", "answer", "bbox", "points", "labels", "phrase"}


INSIDE = {
    "seg-r1": "<bbox>{}</bbox>, <points>{}</points>, <labels>{}</labels>",
    "points-only": "<points>{}</points>, <labels>{}</labels>",
    "sam-r1": '<answer>{{"bbox": {}, "points": {}}}</answer>',
    "json-list": '<answer>[{{"bbox_2d": {}, "point_2d": {}}}]</answer>',
    "seg-zero": '<answer>{{"bbox": {}, "points_1": {}, "points_2": {}}}</answer>',
    "think2seg": '<answer>[{{"bbox_2d": {}, "positive_points": {}}}]</answer>',
    "qwen2-vl": "<|box_start|>{}<|box_end|>",
    "qwen-json": '[{{"bbox_2d": {}, "point_2d": {}}}]',
    "internvl": "<ref>it</ref><box>{}</box>",
    "gemini": '[{{"box_2d": {}, "point": {}}}]',
    "concept": '<answer>[{{"phrase": {}, "bbox_2d": {}, "exclude": {}}}]</answer>',
}
LITERALS = st.recursive(
    st.one_of(st.integers(-9, 9), st.floats(), st.booleans(), st.none(), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@tries(300)
@given(st.sampled_from(sorted(INSIDE)), st.lists(LITERALS, min_size=3, max_size=3))
def test_any_value_in_its_place_is_ok_nothing_or_bad_values(name: str, values: list[object]) -> None:
    text = INSIDE[name].format(*map(json.dumps, values))
    assert answers.parse(text, name).status in (Status.OK, Status.NO_TARGET, Status.BAD_VALUES)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE, FINITE, FINITE)
def test_numbers_are_not_rounded(x1: float, y1: float, x2: float, y2: float) -> None:
    answer = answers.parse(f"<bbox>[{x1!r}, {y1!r}, {x2!r}, {y2!r}]</bbox>", "seg-r1")
    if x1 < x2 and y1 < y2:
        assert answer.prompts == (MaskPrompt((x1, y1, x2, y2)),)
    else:
        assert answer.status is Status.BAD_VALUES


COORDINATES = st.floats(-2000, 2000)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(COORDINATES), draw(COORDINATES)
    return (x, y, x + draw(st.floats(0.01, 900)), y + draw(st.floats(0.01, 900)))


@st.composite
def single_prompts(draw: st.DrawFn) -> MaskPrompt:
    """A box, points anywhere, or both."""
    box = draw(st.none() | boxes())
    points = draw(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=box is None, max_size=4))
    labels = draw(st.lists(st.sampled_from((0, 1)), min_size=len(points), max_size=len(points)))
    return MaskPrompt(box, tuple(points), tuple(labels), Frame.resized(112, 112))


@st.composite
def several_prompts(draw: st.DrawFn) -> list[MaskPrompt]:
    """Boxes that lie apart, each with points inside."""
    prompts = []
    for column in range(draw(st.integers(2, 4))):
        x, y = column * 100 + draw(st.floats(0, 40)), draw(st.floats(0, 40))
        box = (x, y, x + draw(st.floats(1, 50)), y + draw(st.floats(1, 50)))
        inside = st.tuples(st.floats(box[0], box[2]), st.floats(box[1], box[3]))
        points = draw(st.lists(inside, max_size=3))
        labels = draw(st.lists(st.sampled_from((0, 1)), min_size=len(points), max_size=len(points)))
        prompts.append(MaskPrompt(box, tuple(points), tuple(labels), Frame.resized(112, 112)))
    return prompts


@st.composite
def overlapping_prompts(draw: st.DrawFn) -> list[MaskPrompt]:
    """Boxes and points anywhere."""
    whole = st.integers(0, 60)
    prompts = []
    for _ in range(draw(st.integers(2, 4))):
        x, y = draw(whole), draw(whole)
        points = draw(st.lists(st.tuples(whole, whole), max_size=3))
        labels = draw(st.lists(st.sampled_from((0, 1)), min_size=len(points), max_size=len(points)))
        box = (float(x), float(y), float(x + draw(st.integers(1, 50))), float(y + draw(st.integers(1, 50))))
        prompts.append(MaskPrompt(box, tuple((float(a), float(b)) for a, b in points), tuple(labels)))
    return prompts


@given(overlapping_prompts())
def test_points_that_are_read_as_another_object_s_are_no_own_points(prompts: list[MaskPrompt]) -> None:
    own = own_points(prompts)
    assert answers.parse(answers.get("seg-r1").render(own), "seg-r1").prompts == own
    boxes = [prompt.box_xyxy for prompt in prompts if prompt.box_xyxy]
    for index, prompt in enumerate(prompts):
        kept = [xy for xy in prompt.points_xy if group(boxes, [xy], [1], prompt.frame)[index].points_xy]
        assert own[index].box_xyxy == prompt.box_xyxy
        assert list(own[index].points_xy) == kept


PROMPTS = st.one_of(st.just([]), single_prompts().map(lambda p: [p]), several_prompts())
REASONINGS = st.text().filter(lambda text: "think>" not in text)


def only_box(prompt: MaskPrompt) -> MaskPrompt:
    return MaskPrompt(prompt.box_xyxy, frame=prompt.frame)


def only_point(prompt: MaskPrompt) -> MaskPrompt:
    first = tuple(xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label)[:1]
    return MaskPrompt(None, first, (1,) * len(first), prompt.frame)


def box_or_point(prompt: MaskPrompt) -> MaskPrompt:
    return only_box(prompt) if prompt.box_xyxy else only_point(prompt)


NATIVE = {"qwen2-vl": only_box, "internvl": only_box, "qwen-json": box_or_point, "gemini": box_or_point}
NATIVE |= {"molmo": only_point}


def with_box(prompt: MaskPrompt) -> MaskPrompt:
    """`prompt` as concept writes one without words: its box alone. Raises ValueError without one."""
    if prompt.box_xyxy is None:
        raise ValueError
    return only_box(prompt)


def sayable(prompts: Sequence[MaskPrompt], name: str, reasoning: str) -> list[MaskPrompt]:
    """`prompts` on the lattice, reduced to what the format has room for. Raises ValueError if it has none for one."""
    rounded = [round_prompt(prompt) for prompt in prompts]
    if name == "points-only" and rounded:
        points = tuple(xy for prompt in rounded for xy in prompt.points_xy)
        if not all(prompt.points_xy for prompt in rounded):
            raise ValueError
        return [MaskPrompt(None, points, sum((p.labels for p in rounded), ()), rounded[0].frame)]
    if name == "words" and (rounded or reasoning):  # none has a phrase
        raise ValueError
    if name == "concept":
        return [with_box(prompt) for prompt in rounded]
    if name in NATIVE:
        return [NATIVE[name](prompt) for prompt in rounded]
    if name in ("json-list", "seg-zero"):
        room = 1 if name == "json-list" else 2
        first = [tuple(xy for xy, label in zip(p.points_xy, p.labels, strict=True) if label)[:room] for p in rounded]
        return [MaskPrompt(p.box_xyxy, xy, (1,) * len(xy), p.frame) for p, xy in zip(rounded, first, strict=True)]
    return [positive_first(prompt) for prompt in rounded] if name == "think2seg" else rounded


def positive_first(prompt: MaskPrompt) -> MaskPrompt:
    """`prompt` as think2seg writes it: the points on the object, then the others, which may not stand alone."""
    if prompt.box_xyxy is None and not any(prompt.labels):
        raise ValueError
    order = sorted(range(len(prompt.labels)), key=lambda i: -prompt.labels[i])
    points, labels = (tuple(values[i] for i in order) for values in (prompt.points_xy, prompt.labels))
    return replace(prompt, points_xy=points, labels=labels)


@tries(300)
@given(PROMPTS, REASONINGS, NAMES)
def test_what_is_rendered_is_read_back(prompts: list[MaskPrompt], reasoning: str, name: str) -> None:
    answer_format = answers.get(name)
    try:
        expected = sayable(prompts, name, reasoning)
    except ValueError:
        with pytest.raises(ValueError, match="cannot say"):
            answer_format.render(prompts, reasoning)
        return
    text = answer_format.render(prompts, reasoning)
    answer = answers.parse(text, name, frame=Frame.resized(112, 112))
    assert list(answer.prompts) == expected
    assert answer.status is (Status.OK if prompts else Status.NO_TARGET)
    has_place = name not in ("points-only", "words") and (reasoning or name not in NATIVE)
    assert answer.reasoning == (reasoning.strip() if has_place else None)
    foreground_needed = 2 if name == "seg-zero" else 1
    if name == "concept":
        assert answer.parts == {"think", "answer", "bbox"} | ({"phrase"} if not prompts else set())
    elif name not in NATIVE and all(p.box_xyxy and sum(p.labels) >= foreground_needed for p in prompts):
        assert answer.parts == answer_format.required_parts
    assert answer.parts >= answer_format.required_parts or name not in NATIVE or not all(p.box_xyxy for p in prompts)


@given(single_prompts())
def test_rounding(prompt: MaskPrompt) -> None:
    rounded = round_prompt(prompt)
    assert rounded.points_xy == tuple((to_lattice(x), to_lattice(y)) for x, y in prompt.points_xy)
    assert (rounded.labels, rounded.frame) == (prompt.labels, prompt.frame)
    if prompt.box_xyxy and rounded.box_xyxy:
        assert all(abs(a - b) <= 1 for a, b in zip(prompt.box_xyxy, rounded.box_xyxy, strict=True))
    assert round_prompt(rounded) == rounded


SMALL = st.integers(0, 12).map(float)


@st.composite
def small_boxes(draw: st.DrawFn) -> Box:
    x, y = draw(SMALL), draw(SMALL)
    return (x, y, x + draw(SMALL) + 1, y + draw(SMALL) + 1)


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def distance(point: Point, box: Box) -> float:
    """From a point to the nearest point of the box."""
    nearest = (min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3]))
    return math.dist(point, nearest)


@given(st.lists(small_boxes(), min_size=1, max_size=5), st.lists(st.tuples(SMALL, SMALL), max_size=6))
def test_each_point_goes_to_its_box(all_boxes: list[Box], points: list[Point]) -> None:
    labels = [index % 2 for index in range(len(points))]
    prompts = group(all_boxes, points, labels, UNKNOWN_FRAME)
    assert [prompt.box_xyxy for prompt in prompts] == all_boxes
    given_out = [(xy, label) for p in prompts for xy, label in zip(p.points_xy, p.labels, strict=True)]
    assert sorted(given_out) == sorted(zip(points, labels, strict=True))
    for prompt in prompts:
        for x, y in prompt.points_xy:
            holding = [box for box in all_boxes if box[0] <= x < box[2] and box[1] <= y < box[3]]
            if holding:
                assert prompt.box_xyxy in holding
                assert area(prompt.box_xyxy) == min(map(area, holding))
            else:
                own = distance((x, y), prompt.box_xyxy)
                assert own == min(distance((x, y), box) for box in all_boxes)


def test_points_without_boxes_are_one_prompt() -> None:
    prompts = group([], [(1, 1), (9, 9)], [1, 0], UNKNOWN_FRAME)
    assert prompts == (MaskPrompt(None, ((1, 1), (9, 9)), (1, 0)),)
    assert group([], [], [], UNKNOWN_FRAME) == ()


def as_floats(value: object) -> Literal:
    """What the reader makes of a Python value: numbers are floats, tuples lists."""
    if isinstance(value, list | tuple):
        return [as_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    return float(value) if type(value) is int else value  # type: ignore[return-value]


PLAIN = st.recursive(
    st.one_of(st.integers(), FINITE, st.booleans(), st.none(), st.text("abc {}[],:`'é", max_size=5)),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=20,
)


@tries(300)
@given(PLAIN, st.sampled_from((None, 1)))
def test_literals_agree_with_json_and_python(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert read_whole(text) == as_floats(json.loads(text))
    assert read_whole(f" ```json\n{text},\n``` ") == as_floats(value)
    assert read_first(f"see {text} and", 4) == (as_floats(value), 4 + len(text))
    if "'" not in text:
        assert read_whole(repr(value)) == as_floats(ast.literal_eval(repr(value)))


def without_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def read_or_fault(text: str) -> object:
    try:
        return repr(read_whole(text))
    except LiteralError as error:
        return str(error)


@tries(400)
@given(TEXTS | LITERALS.map(json.dumps))
def test_short_and_long_texts_are_read_alike(text: str) -> None:
    """Short ones go through the library's reader first."""
    assert read_or_fault(text + "\n" * 20) == read_or_fault(text + "\n" * 5000)


@tries(400)
@given(st.text(LETTERS, max_size=30) | st.lists(FRAGMENTS, max_size=10).map("".join))
def test_what_json_reads_is_read_alike(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=lambda _: None, object_pairs_hook=without_twice)
    except ValueError:
        return
    try:
        value = read_whole(text)
    except LiteralError:
        pytest.fail(f"json reads {text!r} as {expected!r}")
    if "\\" not in text and "N" not in text and "I" not in text:
        assert value == as_floats(expected)
