"""Time linear in the text's length, for texts made to be slow, and speed on ordinary ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
from tries import is_full

from segrl import answers
from segrl.answers.mask_prompts import MAX_BOXES, MAX_POINTS
from segrl.types import Status

# Each stands for a text that repeats its middle: (before, middle, after).
HARD = {
    "open brackets": ("<bbox>", "[", "</bbox>"),
    "brackets apart": ("<answer>", "[ ", "</answer>"),
    "closed brackets": ("<bbox>", "]", "</bbox>"),
    "long list": ("<bbox>[", "1,", "1]</bbox>"),
    "list broken at its end": ("<points>[", "1,", "x]</points><labels>[]</labels>"),
    "list of lists": ("<points>[", "[1,2],", "]</points><labels>[1]</labels>"),
    "points and labels": ("<bbox>[1,2,3,4]</bbox><points>[[1,2]]</points><labels>[", "1,", "]</labels>"),
    "tags": ("", "<bbox>[1,2,3,4]</bbox>", "<points>[]</points><labels>[]</labels>"),
    "empty tags": ("", "<points>[]</points><labels>[]</labels>", ""),
    "opening tags": ("", "<points>", ""),
    "closing tags": ("", "</labels>", ""),
    "answers": ("", "<answer>{}</answer>", ""),
    "open answers": ("", "<answer>", ""),
    "think": ("", "<think>", ""),
    "end of think": ("", "</think>", "[]"),
    "think both": ("", "<think></think>", "[]"),
    "angle brackets": ("", "<", ""),
    "digits": ("<bbox>[", "9", ",1,2,3]</bbox>"),
    "zeros": ("<bbox>[0.", "0", "1,1,2,3]</bbox>"),
    "exponent": ("<bbox>[1e", "9", ",1,2,3]</bbox>"),
    "signs": ("<bbox>[", "+-", "]</bbox>"),
    "dots": ("<bbox>[", "1.", "]</bbox>"),
    "spaces": ("<bbox>[1", " ", "x]</bbox>"),
    "bare spaces": ("[", " ", "x"),
    "bare brackets and spaces": ("", "[  ", ""),
    "fences": ("<bbox>", "```", "[1]</bbox>"),
    "ticks apart": ("<bbox>", "` ", "</bbox>"),
    "fence words": ("<bbox>```", "a", "[1]</bbox>"),
    "escapes": ('<answer>{"', "\\a", "</answer>"),
    "quotes": ("<answer>[", '"",', "]</answer>"),
    "unclosed quotes": ("<answer>{", "\"'", "</answer>"),
    "words": ("<bbox>", "a", "</bbox>"),
    "keys": ("<answer>{", '"a":1,', "}</answer>"),
    "entries": ("", '{"bbox_2d":[1,2,3,4]},', ""),
    "list of entries": ("[", '{"bbox_2d":[1,2,3,4]},', "]"),
    "nested entries": ("", '[{"a":', ""),
    "surrogates": ("<bbox>", "\ud800", "</bbox>"),
    "prose": ("<think>", "the cat sits on the mat ", "</think><bbox>[1,2,3,4]</bbox>"),
}
HARD |= {
    "box tokens": ("", "<|box_start|>(1,2),(3,4)<|box_end|>", ""),
    "open box tokens": ("", "<|box_start|>", ""),
    "box tags": ("", "<box>[[1,2,3,4]]</box>", ""),
    "point tags": ("", '<point x="1" y="2">', ""),
    "point attributes": ("<points", ' x1="1" y1="2"', ">a</points>"),
    "attributes without an end": ("<points", ' x="1', ""),
}
LENIENT_HARD = {
    "fields without an end": ("", '"bbox_2d": [1,2,', ""),
    "objects in no list": ("", '{"bbox": [1,2,3,4]} ', ""),
    "drafts": ("", '{"bbox": [1,2,3,4]} and then wait ', ""),
    "rows": ("", "[1 2 3 4] ", ""),
    "rows without an end": ("", "[1 2 3 ", ""),
    "percentages": ("", "[1%,", ""),
    "wide brackets": ("", "［", ""),
    "apostrophes": ("{", "'a'", ""),
    "keys and open quotes": ('{"a', '": "', ""),
    "a key far from its colon": ('"bbox"', " ", ": [1"),
    "named coordinates": ("", '{"x1":1,', ""),
    "cut answers": ("", '<answer>[{"bbox":[1,2,3', ""),
    "broken answers": ("", '<answer>[{"bbox":[1,2,3]</answer>', ""),
    "comments": ('"bbox": [', "//", ""),
    "box tokens": ("", "<|box_start|>(1,2)", ""),
    "answers in the thinking": ("<think>", "<answer>x", ""),
    "no": ("", "no a ", ""),
}
LENGTH, FACTOR = 6_000 if is_full() else 2_000, 8


Read = Callable[[str], object]


def seconds(read: Read, text: str, repeats: int = 3) -> float:
    """The least CPU time of a few readings."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        read(text)
        times.append(time.process_time() - start)
    return min(times)


def check_linear(parts: tuple[str, str, str], read: Read) -> None:
    """Raises AssertionError if a text FACTOR times as long takes much more than FACTOR times as long."""
    before, middle, after = parts
    count = LENGTH // len(middle)
    short = seconds(read, before + middle * count + after)
    long = seconds(read, before + middle * (count * FACTOR) + after, repeats=1)
    if long > 2.5 * FACTOR * short + 0.02:  # a quadratic step would take FACTOR² times as long: measure again
        long = seconds(read, before + middle * (count * FACTOR) + after)
    assert long <= 2.5 * FACTOR * short + 0.02, read


@pytest.mark.parametrize(
    "parts",
    [("", " ", "x"), ("<answer>", " ", "x"), ("done", " ", "x"), ("", "</think> ", "x"), ("", "</think>done ", "x")],
)
def test_whether_a_text_says_done_takes_linear_time(parts: tuple[str, str, str]) -> None:
    check_linear(parts, answers.says_done)


@pytest.mark.parametrize("kind", HARD)
def test_time_is_linear(kind: str) -> None:
    for name in {*answers.names()} - {"qwen-json", "gemini", "seg-zero", "think2seg"}:  # these read as json-list does
        check_linear(HARD[kind], partial(answers.parse, answer_format=name))


@pytest.mark.parametrize("kind", HARD | LENIENT_HARD)
def test_time_of_the_lenient_reading_is_linear(kind: str) -> None:
    for name in ("json-list", "seg-r1"):  # the others scan as one of these does
        check_linear((HARD | LENIENT_HARD)[kind], partial(answers.parse, answer_format=name, reading="lenient"))


@pytest.mark.parametrize("name", answers.names())
@pytest.mark.parametrize("digits", ["9" * 1_000_000, "0" * 1_000_000 + "1", "1" * 5000, "0." + "1" * 1_000_000])
def test_numbers_of_any_length(digits: str, name: str) -> None:
    box = f"[{digits},1,2e400,3]"
    texts = {"seg-r1": f"<bbox>{box}</bbox>", "points-only": f"<points>[{box}]</points><labels>[1]</labels>"}
    texts |= {"sam-r1": f'<answer>{{"bbox": {box}}}</answer>', "json-list": f'[{{"bbox_2d": {box}}}]'}
    texts |= {"seg-zero": f'{{"bbox": {box}}}', "qwen-json": texts["json-list"], "gemini": f'[{{"box_2d": {box}}}]'}
    texts |= {
        "think2seg": texts["json-list"],
        "qwen2-vl": f"<|box_start|>({digits},1),(2e400,3)<|box_end|>",
        "internvl": f"<box>[{box}]</box>",
    }
    texts |= {"concept": f'[{{"phrase": "it", "bbox_2d": {box}}}]', "words": digits}
    texts |= {"molmo": f'<point x="{digits}" y="{digits}" z="1">a</point>'}
    assert name in texts, f"the answer format {name} has no text with a long number here: give it one"
    if name == "molmo" and digits.startswith("0"):
        assert answers.parse(texts[name], name).status is Status.OK
        return
    assert answers.parse(texts[name], name).status is Status.BAD_VALUES


def test_the_most_points_and_boxes_that_an_answer_may_have() -> None:
    boxes = "".join(f"<bbox>[{i},{i},{i + 5},{i + 5}]</bbox>" for i in range(MAX_BOXES))
    points = ",".join(f"[{9000 + i},{-i}]" for i in range(MAX_POINTS))
    text = f"{boxes}<points>[{points}]</points><labels>[{'1,' * MAX_POINTS}]</labels>"
    assert len(answers.parse(text, "seg-r1").prompts) == MAX_BOXES
    assert seconds(partial(answers.parse, answer_format="seg-r1"), text, repeats=2) < 2


def test_many_thousand_points_and_boxes() -> None:
    count = 200_000 if is_full() else 40_000
    many = "[" + "[1,2]," * count + "]"
    text = f"{'<bbox>[1,2,3,4]</bbox>' * (count // 2)}<points>{many}</points><labels>[{'1,' * count}]</labels>"
    answer = answers.parse(text, "seg-r1")
    assert answer.status is Status.BAD_VALUES
    assert "more than the" in answer.detail


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_thousands_of_ordinary_answers_a_second(reading: answers.Reading) -> None:
    """The aim is 20,000 on one core; a tenth of it is asked for here, where the core may be busy."""
    text = (
        f"<think>{'I see a red circle and a blue square. ' * 5}</think> "
        "<bbox>[248,218,395,300]</bbox>, <points>[[360,237],[268,262],[300,250]]</points>, <labels>[1,1,0]</labels>"
    )
    start = time.process_time()
    for _ in range(2000):
        answers.parse(text, "seg-r1", reading=reading)
    assert 2000 / (time.process_time() - start) > 2000
