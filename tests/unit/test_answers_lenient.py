"""The lenient reading: whole objects out of broken text, and what it says about it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_answers import NO_TARGET, READ
from test_answers_properties import NAMES, PROMPTS, TEXTS
from tries import tries

from segrl import answers, segmenters
from segrl.answers.mask_prompts import MAX_BOXES
from segrl.coordinates import without_outside
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL, RELATIVE_1000, UNKNOWN_FRAME, Answer, Box, Frame, MaskPrompt, Point, Status

A: Box = (10, 20, 110, 220)
B: Box = (210, 20, 310, 220)
JSON_A, JSON_B = '{"bbox_2d": [10,20,110,220]}', '{"bbox_2d": [210,20,310,220]}'
BROKEN = '{"bbox_2d": [1, 2, 3]}'


def lenient(text: str, name: str = "json-list", *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME) -> Answer:
    return answers.parse(text, name, truncated=truncated, frame=frame, reading="lenient")


def boxes(answer: Answer) -> list[Box | None]:
    return [prompt.box_xyxy for prompt in answer.prompts]


SEVERAL = [
    f"{JSON_A}\n{JSON_B}",
    f"{JSON_A}, {JSON_B}",
    f"```json\n{JSON_A}\n```\n\n```json\n{JSON_B}\n```",
    f"1. {JSON_A}\n2. {JSON_B}",
    f"The left dog is {JSON_A} and the right dog {JSON_B}.",
    f"```json\n[{JSON_A}]\n```\n```json\n[{JSON_B}]\n```",
]


@pytest.mark.parametrize("text", SEVERAL)
def test_several_objects_without_a_list(text: str) -> None:
    """CASES 1."""
    answer = lenient(text)
    assert boxes(answer) == [A, B]
    if "[{" not in text:
        assert answer.repairs == ("2 objects that stood in no list were taken together",)
    assert answers.parse(text, "json-list").repairs == ()


@pytest.mark.parametrize("name", ["json-list", "seg-r1", "sam-r1"])
@pytest.mark.parametrize(
    "cut", ["", "{", '{"bbox_2d": [12, 4', '{"bbox_2d"', '{"bbox_2d": [12, 40, 70, 8', '{"bbox_2d": [']
)
def test_a_list_that_is_cut_off_keeps_its_whole_objects(cut: str, name: str) -> None:
    """CASES 2. The last number may lack its last digits, so that its box is no whole one."""
    text = "```json\n[" + ", ".join([JSON_A, JSON_B] * 20) + f", {cut}"
    assert answers.parse(text, name, truncated=True).status is Status.TRUNCATED
    answer = lenient(text, name, truncated=True)
    assert boxes(answer) == [A, B] * 20
    assert any("cut off" in line for line in answer.repairs)


@pytest.mark.parametrize(
    "fault", [BROKEN, '{"bbox_2d": [1,2,30,null]}', '{"bbox_2d": [1,2,1,40]}', '{"label": "x"}', "{}"]
)
def test_one_entry_that_cannot_be_used_leaves_the_others(fault: str) -> None:
    """CASES 2."""
    answer = lenient(f"<answer>[{JSON_A}, {fault}, {JSON_B}]</answer>")
    assert boxes(answer) == [A, B]
    assert answer.repairs


ONE_BOX = [
    '[{"bbox_2d": [10, 20, 110, "220"]}]',
    '[{"bbox_2d": [10, 20, 110, 220]"}]',
    '[{"bbox_2d": [10, 20, 110, 220]", "label": "dog"}]',
    '[{"bbox_2d": [10, 20, 110, 220}]',
    '[{"bbox_2d": [10, 20, 110, 220]]',
    '[{"bbox_2d": [10, 20, 110, 220], ...]',
    '[{"bbox_2d": [10, 20, 110, 220]}, ...]',
    '[{"bbox_2d": [10, 20, 110, 220]}, {...}]',
    '[{"bbox_2d": [10 20 110 220]}]',
    '[{"bbox_2d": [10, 20, 110, 220] "label": "dog"}]',
    '[{"bbox": [10, 20, 110, 220]}]',
    '[{"box": (10, 20, 110, 220)}]',
    '[{"bounding_box": [10, 20, 110, 220]}]',
    '[\n  {"bbox_2d": [10, 20, 110, 220]}, // the left one\n]',
    '[{"bbox_2d": [10, 20, // x and y\n 110, 220]}]',
    '{"objects": [{"bbox_2d": [10, 20, 110, 220], "score": 0.97}]}',
    "[{'label': 'dog's toy', 'bbox_2d': [10, 20, 110, 220]}]",
    '[{"label": "a "big" dog", "bbox_2d": [10, 20, 110, 220]}]',
    r"[{\"bbox_2d\": [10, 20, 110, 220]}]",
    '[{"bbox_2d": "[10, 20, 110, 220]"}]',
    '[{"bbox_2d": "10, 20, 110, 220"}]',
    "[{bbox_2d: [10, 20, 110, 220]}]",
    '[{"bbox_2d": [[10, 20], [110, 220]]}]',
    '[{"bbox_2d": [110, 220, 10, 20]}]',
    '[{"bbox_2d": [10, 20, 110, 220, 0.97]}]',
    '[{"bbox_2d": {"x1": 10, "y1": 20, "x2": 110, "y2": 220}}]',
    '[{"x_min": 10, "y_min": 20, "x_max": 110, "y_max": 220}]',
    '{"bbox_2d": {"x": 10, "y": 20, "width": 100, "height": 200}}',
    "[10, 20, 110, 220]",
    "[[10, 20, 110, 220]]",
    "The dog is at [10, 20, 110, 220].",
    "(10,20),(110,220)",
    "<ref>the dog</ref><box>[[10, 20, 110, 220]]</box>",
    "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(10,20),(110,220)<|box_end|><|im_end|>",
    "<|begin_of_box|>[[10, 20, 110, 220]]<|end_of_box|>",
    "<bbox>[10, 20, 110, 220]</bbox>",
    "［｛“bbox_2d”：［１０，２０，１１０，２２０］｝］",
    "【10，20，110，220】",
    "[{「bbox_2d」: [10、20、110、220]}]",
]


@pytest.mark.parametrize("text", ONE_BOX)
@pytest.mark.parametrize("wrap", ["{}", "<answer>{}</answer>", "<think>it is left</think>\n{}", "```json\n{}\n```"])
def test_a_broken_box_is_read(text: str, wrap: str) -> None:
    """CASES 3 and 4."""
    assert boxes(lenient(wrap.format(text))) == [A]


# gemini writes y before x; to words every text is a phrase.
@pytest.mark.parametrize("name", sorted({*answers.names()} - {"gemini", "words"}))
def test_other_formats_are_read_as_well(name: str) -> None:
    for text in ("<bbox>[10,20,110,220]</bbox>", f"[{JSON_A}]", '<answer>{"bbox": [10,20,110,220]}</answer>'):
        assert boxes(lenient(text, name)) == [A]


POINT: tuple[Point, ...] = ((170, 240),)


@pytest.mark.parametrize(
    ("name", "text", "prompt"),
    [
        ("json-list", '[{"bbox_2d": [10,20,110,220], "point_2d": [170, 240}}]', MaskPrompt(A, POINT, (1,))),
        ("json-list", '<answer>[{"point_2d": [170, 240}}]</answer>', MaskPrompt(None, POINT, (1,))),
        ("json-list", "<answer>[170, 240]</answer>", MaskPrompt(None, POINT, (1,))),
        ("seg-zero", '<answer>{"bbox": [10,20,110,220], "points_1": [[170,240]]}</answer>', MaskPrompt(A, POINT, (1,))),
        ("sam-r1", '{"bbox": [10,20,110,220], "points": [[170,240]]}', MaskPrompt(A, POINT, (1,))),
        ("sam-r1", '{"bbox": [10,20,110,220], "points": [[170,240]], "labels": [0]}', MaskPrompt(A, POINT, (0,))),
        ("sam-r1", '<answer>{"bbox": [10,20,110,220], "points": [[170,240,1],[1,', MaskPrompt(A, POINT, (1,))),
        (
            "seg-r1",
            "<bbox>[10,20,110,220]</bbox><points>[170,240]</points><labels>1</labels>",
            MaskPrompt(A, POINT, (1,)),
        ),
        (
            "seg-r1",
            "<bbox>[10,20,110,220]</bbox><points>[[170,240],[5,6]]</points><labels>[1",
            MaskPrompt(A, POINT, (1,)),
        ),
        ("seg-r1", "<BBOX>10,20,110,220</BBOX> <points>[[170,240]]", MaskPrompt(A, POINT, (1,))),
        ("points-only", "<points>[[170,240]]</points>", MaskPrompt(None, POINT, (1,))),
    ],
)
def test_broken_points_are_read(name: str, text: str, prompt: MaskPrompt) -> None:
    """CASES 3 and 6."""
    assert answers.parse(text, name).status.is_failure
    assert lenient(text, name).prompts == (prompt,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("json-list", '[{"label": "dogs", "bbox_2d": [[10,20,110,220],[210,20,310,220]]}]'),
        ("json-list", f"[{JSON_A} {JSON_B}]"),
        ("json-list", f"[{JSON_A}{JSON_B}]"),
        ("json-list", '[{"bbox_2d": [10,20,110,220], {"bbox_2d": [210,20,310,220]}]'),
        ("json-list", '[{"bbox_2d": [10,20,110,220], "bbox_2d": [210,20,310,220]]'),
        ("seg-r1", "<bbox>[10,20,110,220],[210,20,310,220]</bbox>"),
        ("seg-r1", "<bbox>[10,20,110,220]<bbox>[210,20,310,220]</bbox>"),
        ("sam-r1", '<answer>{"bbox": [[10,20,110,220], [210,20,310,220]}</answer>'),
    ],
)
def test_several_boxes_in_broken_text(name: str, text: str) -> None:
    """CASES 3 and 6."""
    assert boxes(lenient(text, name)) == [A, B]


@pytest.mark.parametrize("tail", ["", " " * 5000])  # short texts go through the library's reader first
def test_a_key_that_stands_twice_hides_no_object(tail: str) -> None:
    """JSON's readers differ in which of the two they take: the strict reading takes neither, the lenient one both."""
    text = f'[{{"bbox_2d": [10,20,110,220], "bbox_2d": [210,20,310,220]}}]{tail}'
    answer = answers.parse(text, "json-list")
    assert (answer.status, answer.detail) == (Status.BAD_SYNTAX, "the key 'bbox_2d' stands twice in one object")
    assert boxes(lenient(text)) == [A, B]


@pytest.mark.parametrize(
    "text", ["[{}]", "<answer></answer>", "<answer>\n```json\n```</answer>", "<answer>[{}]</answer>"]
)
def test_nothing_there_in_other_spellings(text: str) -> None:
    """CASES 3."""
    assert answers.parse(text, "json-list").status.is_failure
    answer = lenient(text)
    assert answer.status is Status.NO_TARGET
    assert answer.repairs
    assert not answer.says_none


@pytest.mark.parametrize("text", ["<answer>", "[{", '{"bbox_2d": [', "<answer>[{}", "<bbox>[]</bbox>"])
def test_a_cut_answer_never_says_that_nothing_is_there(text: str) -> None:
    assert lenient(text, "seg-r1", truncated=True).status is Status.TRUNCATED


WORDS = [
    "There are no dogs in this image.",
    "<answer>None</answer>",
    "<think>where is it</think> I cannot find a dog here.",
    "<answer>There is no dog.</answer>",
    "图中没有狗。",
    "No such object is visible.",
]


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_none_in_words_stays_a_failure_and_is_told_apart(text: str, reading: answers.Reading) -> None:
    """CASES 7."""
    answer = answers.parse(text, "json-list", reading=reading)
    assert answer.status.is_failure
    assert answer.says_none


def test_other_failures_do_not_say_none() -> None:
    for text in ("", "The dog is on the left.", "<answer>[{</answer>", "a box"):
        assert not answers.parse(text, "json-list").says_none


FINAL = [
    f"Draft: [{JSON_B}] Final: [{JSON_A}]",
    f"{JSON_B} Wait, that is the cat. {JSON_A}",
    f"<answer>[{JSON_B}]</answer> corrected: <answer>[{JSON_A}]</answer>",
    f"<answer>[{JSON_A}]</answer> <answer>[{JSON_B}",
    f"<think>perhaps [{JSON_B}]</think> [{JSON_A}]",
    f"[{JSON_A}] I list them again: [{BROKEN}]",
    f"[{JSON_B}] not so; [{JSON_A}, {BROKEN}]",
]


@pytest.mark.parametrize("text", FINAL)
@pytest.mark.parametrize("truncated", [False, True])
def test_the_last_complete_answer_counts(text: str, truncated: bool) -> None:
    assert boxes(lenient(text, truncated=truncated)) == [A]


THOUGHT = [
    (f"<think>it is left <answer>[{JSON_A}]</answer>", True),
    (f"<think>it is left\n[{JSON_A}]", True),
    (f"<think>it is left\n```json\n[{JSON_A}]\n```<|im_end|>", True),
    (f"<think>it is left <answer>[{JSON_A}]</answer></think>", True),
    (f"<think>perhaps [{JSON_A}], or the right one", False),
    (f"<think>perhaps [{JSON_A}]</think> I do not know.", False),
]


@pytest.mark.parametrize(("text", "is_answer"), THOUGHT)
def test_an_answer_within_the_thinking(text: str, is_answer: bool) -> None:
    assert answers.parse(text, "json-list").status.is_failure
    answer = lenient(text)
    assert boxes(answer) == ([A] if is_answer else [])
    assert answer.status.is_failure is not is_answer


def test_percentages_are_relative_to_the_image() -> None:
    for text in ('[{"bbox_2d": ["10%", "20%", "30 %", "40%"]}]', "[10%, 20%, 30%, 40%]", "［10％，20％，30％，40％］"):
        assert lenient(text, frame=Frame.resized(840, 840)).prompts == (
            MaskPrompt((100, 200, 300, 400), frame=RELATIVE_1000),
        )
    assert lenient('[{"bbox_2d": [10%, 20%, 30%, 40%], "point_2d": [5, 6]}]').status.is_failure


def test_what_is_too_much_is_left_out() -> None:
    answer = lenient(f"[{', '.join([JSON_A] * (MAX_BOXES + 3))}]")
    assert len(answer.prompts) == MAX_BOXES
    assert answer.repairs[-1] == f"left out (3 times): all beyond {MAX_BOXES} boxes or 1024 points"


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text, _ in READ] + NO_TARGET)
def test_what_the_strict_reading_takes_is_read_alike(name: str, text: str) -> None:
    assert lenient(text, name) == answers.parse(text, name)


@tries(200)
@given(PROMPTS, NAMES, st.text("abc d.'[", max_size=12))
def test_what_is_rendered_is_read_without_repairs(prompts: list[MaskPrompt], name: str, reasoning: str) -> None:
    try:
        text = answers.get(name).render(prompts, reasoning)
    except ValueError:
        return
    answer = lenient(text, name)
    assert answer == answers.parse(text, name)
    assert answer.repairs == ()
    half = lenient(text[: len(text) // 2], name, truncated=True)
    assert half.status in (Status.OK, Status.TRUNCATED)


@tries(400)
@given(TEXTS, NAMES, st.booleans())
def test_any_text_gives_an_answer(text: str, name: str, truncated: bool) -> None:
    answer, strict = lenient(text, name, truncated=truncated), answers.parse(text, name, truncated=truncated)
    assert bool(answer.detail) == answer.status.is_failure
    assert all(line.isprintable() and len(line) < 250 for line in answer.repairs)
    assert bool(answer.repairs) or answer == strict
    if not strict.status.is_failure:
        assert not answer.status.is_failure
    if answer.status is not Status.NO_TARGET:
        assert not answer.status.is_failure or not answer.prompts


KEYS = [
    "bbox_2d:",
    '"bbox_2d": [',
    '"point_2d":',
    "labels=",
    "<|box_start|>",
    "(1,2),",
    "5%",
    "//",
    "wait ",
    "...",
    "nan",
]
SHORT_RUN, LONG_RUN = 3000, 1_000_000


def random_text(rng: random.Random, pieces: list[str]) -> str:
    """Pieces of answers and single characters in any order, cut anywhere."""
    parts = [
        rng.choice(pieces) if rng.random() < 0.85 else chr(rng.randrange(0x3100)) for _ in range(rng.randrange(30))
    ]
    return "".join(parts)[: rng.randrange(1, 200)]


@pytest.mark.parametrize("count", [SHORT_RUN, pytest.param(LONG_RUN, marks=pytest.mark.long)])
def test_random_texts(count: int) -> None:
    """Both readings take any text, and the lenient one takes whatever the strict one does."""
    rng = random.Random(1)
    pieces = [*KEYS, *SEVERAL, *ONE_BOX, *'[]{}(),:"<>/ \n'] + [text for _, text, _ in READ]
    for _ in range(count):
        text, name, truncated = random_text(rng, pieces), rng.choice(answers.names()), rng.random() < 0.3
        strict = answers.parse(text, name, truncated=truncated)
        assert strict.status.is_failure or not lenient(text, name, truncated=truncated).status.is_failure


def test_a_box_outside_the_image_leaves_the_others() -> None:
    text = f"[{JSON_A}, {JSON_B}]"
    image, form, box = Image.new("RGB", (150, 240)), answers.get("json-list"), segmenters.load("box")
    (strict,) = TextToMasks(form, lambda _: ORIGINAL, box).read([text], [image])
    (kept,) = TextToMasks(form, lambda _: ORIGINAL, box, "lenient").read([text], [image])
    assert (strict.answer.status, len(strict.masks)) == (Status.BAD_VALUES, 0)
    assert (kept.answer.status, len(kept.masks)) == (Status.OK, 1)
    assert kept.answer.repairs == ("left out: the box [210, 20, 310, 220] holds no pixel of the image (150×240)",)
    assert kept.written is not None
    assert boxes(kept.written) == [A, B]
    all_outside = Answer(Status.OK, (MaskPrompt(B, frame=ORIGINAL),))
    assert without_outside(all_outside, (150, 240)) is all_outside
