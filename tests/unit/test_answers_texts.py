"""Around the answer: truncation, reasoning, parts, frames; text prompts and renderings word for word."""

from __future__ import annotations

import doctest

import pytest

from segrl import answers
from segrl.answers import lenient
from segrl.errors import SegrlError
from segrl.types import MAX_PHRASE, RELATIVE_1000, UNKNOWN_FRAME, Frame, MaskPrompt, Status

ALL = answers.names()
TAGS = "<bbox>[1,2,30,40]</bbox>, <points>[[5,6],[7,8]]</points>, <labels>[1,0]</labels>"
BOX = MaskPrompt((1, 2, 30, 40))
POINTS = MaskPrompt(None, ((5, 6), (7, 8)), (1, 0))
BOTH = MaskPrompt((1, 2, 30, 40), ((5, 6), (7, 8)), (1, 0))
FOREGROUND = MaskPrompt((1, 2, 30, 40), ((5, 6),), (1,))
OTHER = MaskPrompt((100, 100, 200, 200), ((150, 150),), (1,))


def seg(box: str = "[1,2,30,40]", points: str = "[[5,6],[7,8]]", labels: str = "[1,0]") -> str:
    return f"<bbox>{box}</bbox>, <points>{points}</points>, <labels>{labels}</labels>"


def sam(body: str) -> str:
    return f"<think>t</think> To generate the mask of the target object, <answer>{body}</answer>"


class OfEachFormat(dict[str, str]):
    """A text for each answer format; the test of a new format says what it lacks."""

    def __missing__(self, name: str) -> str:
        pytest.fail(f"the answer format {name} has no text in COMPLETE or QUOTED of {__file__}: give it one in each")


COMPLETE = OfEachFormat(
    {
        "seg-r1": f"<think>t</think> {TAGS}",
        "points-only": "<points>[[5,6],[7,8]]</points>, <labels>[1,0]</labels>",
        "sam-r1": sam('{"bbox": [1,2,30,40], "points": [[5,6,1]]}'),
        "json-list": '<think>t</think><answer>[{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}]</answer>',
        "seg-zero": '<think>t</think><answer>{"bbox": [1,2,30,40], "points_1": [5,6], "points_2": [7,8]}</answer>',
        "think2seg": '<think>t</think><answer>[{"bbox_2d": [1,2,30,40], "positive_points": [[5,6]]}]</answer>',
        "qwen2-vl": "<think>t</think><|box_start|>(1,2),(30,40)<|box_end|>",
        "qwen-json": '<think>t</think>```json\n[{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}]',
        "internvl": "<think>t</think><ref>it</ref><box>[[1,2,30,40],[5,6,70,80]]</box>",
        "molmo": '<think>t</think><points x1="0.1" y1="0.2" x2="3" y2="4" alt="it">it</points>',
        "gemini": '<think>t</think>```json\n[{"box_2d": [2,1,40,30], "point": [5,6]}]',
        "concept": '<think>t</think> <answer>[{"phrase": "a cat", "bbox_2d": [1,2,30,40]}]</answer>',
        "words": "a cat",
    }
)


@pytest.mark.parametrize("name", [name for name in ALL if name != "words"])
def test_a_cut_answer_is_truncated_and_a_whole_one_is_not(name: str) -> None:
    text = COMPLETE[name]
    for end in range(len(text)):
        assert answers.parse(text[:end], name, truncated=True).status is Status.TRUNCATED
    assert answers.parse(text, name, truncated=True).status is Status.OK
    assert answers.parse(f"{text} and so", name, truncated=True).status is Status.OK
    if name not in ("seg-r1", "points-only", "sam-r1", "json-list", "seg-zero"):
        return
    assert answers.parse(text.replace("[5", "[x"), name, truncated=True).status is Status.BAD_SYNTAX
    assert answers.parse(text.replace("[5", "[true,5"), name, truncated=True).status is Status.BAD_VALUES


@pytest.mark.parametrize("text", ["", "a c", COMPLETE["words"], "<think>it", "<think>it is</think>"])
def test_cut_words_are_truncated_for_nothing_marks_their_end(text: str) -> None:
    assert answers.parse(text, "words", truncated=True).status is Status.TRUNCATED


def test_a_cut_bare_list_is_truncated() -> None:
    text = '[{"bbox_2d": [1,2,30,40]}]'
    assert answers.parse(text[:-1], "json-list", truncated=True).status is Status.TRUNCATED
    assert answers.parse(text, "json-list", truncated=True).status is Status.OK


QUOTED = OfEachFormat({"seg-r1": seg("[9,9,99,99]", "[]", "[]")})
QUOTED |= {"points-only": "<points>[]</points><labels>[]</labels>"}
QUOTED |= {"think2seg": '[{"bbox_2d": [9,9,99,99], "positive_points": [[9,9]]}]'}
QUOTED |= {"seg-zero": '{"bbox": [9,9,99,99], "points_1": [9,9]}'}
QUOTED |= {"qwen2-vl": "<|box_start|>(9,9),(99,99)<|box_end|>", "internvl": "<box>[[9,9,99,99]]</box>"}
QUOTED |= {"qwen-json": '[{"bbox_2d": [9,9,99,99]}]', "gemini": '[{"box_2d": [9,9,99,99]}]'}
QUOTED |= {"concept": '[{"phrase": "a dog", "bbox_2d": [9,9,99,99]}]', "words": "a dog"}
QUOTED |= {"molmo": '<point x="9" y="9">it</point>'}
QUOTED |= {"sam-r1": '<answer>{"bbox": [9,9,99,99]}</answer>', "json-list": '[{"bbox_2d": [9,9,99,99]}]'}


@pytest.mark.parametrize("name", ALL)
def test_an_answer_quoted_in_the_reasoning_is_not_the_answer(name: str) -> None:
    quoted, text = QUOTED[name], COMPLETE[name].removeprefix("<think>t</think>")
    expected = answers.parse(text, name).prompts
    for before in (f"<think>{quoted}</think>", f"{quoted}</think>", f"<think>a</think>{quoted}<think>b</think>"):
        assert answers.parse(before + text, name).prompts == expected
    assert answers.parse(f"<think>{quoted}</think>", name).status is Status.NO_ANSWER
    assert answers.parse(f"<think>{quoted}", name).status is Status.NO_ANSWER
    assert answers.parse(f"<think>{quoted}", name, truncated=True).status is Status.TRUNCATED


@pytest.mark.parametrize(
    ("text", "reasoning", "has_think"),
    [
        ("<think> it is\n left </think> x", "it is\n left", True),
        ("<think></think>", "", True),
        ("no tags", None, False),
        ("left </think> x", None, False),
        ("<think>it never ends", "it never ends", False),
        ("<think>a</think> b </think>", "a</think> b", False),
        ("<think>a<think>b</think>", "a<think>b", False),
        ("a</think><think>b", "b", False),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_reasoning(name: str, text: str, reasoning: str | None, has_think: bool) -> None:
    answer = answers.parse(text, name)
    assert answer.reasoning == reasoning
    assert ("think" in answer.parts) == has_think


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("seg-r1", f"<think>t</think> {TAGS}", "think bbox points labels"),
        ("seg-r1", TAGS, "bbox points labels"),
        ("seg-r1", "<bbox>[1,2,30,40]</bbox>", "bbox"),
        ("seg-r1", "<points>[[5,6]]</points><labels>[1]</labels>", "points labels"),
        ("seg-r1", seg(points="[[5,6]]"), "bbox"),
        ("seg-r1", seg(labels="[1,2]"), "bbox"),
        ("seg-r1", seg(box="[1,2]"), "points labels"),
        ("seg-r1", seg(box="["), "points labels"),
        ("seg-r1", seg(box="[]"), ""),
        ("seg-r1", "<bbox>[]</bbox>", ""),
        ("points-only", TAGS, "points labels"),
        ("points-only", "<points>[[5,6]]</points>", ""),
        ("sam-r1", COMPLETE["sam-r1"], "think answer bbox points"),
        ("sam-r1", sam('{"bbox": [1,2,30,40]}'), "think answer bbox"),
        ("sam-r1", sam('{"bbox": [1,2], "points": [[5,6,1]]}'), "think answer points"),
        ("sam-r1", sam('{"bbox": [], "points": [[5,6,1]]}'), "think answer"),
        ("sam-r1", sam("[]"), "think answer"),
        ("sam-r1", sam("{"), "think"),
        ("sam-r1", "<answer>{}</answer>" + '<answer>{"bbox": [1,2,30,40], "points": []}</answer>', "bbox points"),
        ("json-list", COMPLETE["json-list"], "think answer bbox points"),
        ("json-list", '[{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}]', "bbox points"),
        ("json-list", '[{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}, {"point_2d": [5,6]}]', "points"),
        ("json-list", '<answer>[{"bbox_2d": [1,2], "point_2d": [5,6]}]</answer>', "answer points"),
        ("think2seg", COMPLETE["think2seg"], "think answer bbox points"),
        ("think2seg", '[{"bbox_2d": [1,2,30,40], "negative_points": [[5,6]]}]', "bbox"),
        ("seg-zero", COMPLETE["seg-zero"], "think answer bbox points"),
        ("seg-zero", '{"bbox": [1,2,30,40], "points_1": [5,6], "points_2": [7,8]}', "bbox points"),
        ("seg-zero", '<answer>{"bbox": [1,2,30,40], "points_1": [5,6]}</answer>', "answer bbox"),
        ("seg-zero", '<answer>{"bbox": [1,2], "points_1": [5,6], "points_2": [7,8]}</answer>', "answer points"),
    ],
)
def test_parts(name: str, text: str, parts: str) -> None:
    assert answers.parse(text, name).parts == set(parts.split())


def test_prompts_carry_the_policys_frame() -> None:
    for frame in (UNKNOWN_FRAME, RELATIVE_1000, Frame.resized(840, 840)):
        for name in ALL:
            assert {prompt.frame for prompt in answers.parse(COMPLETE[name], name, frame=frame).prompts} == {frame}


def test_words_have_their_part_only_if_they_are_valid() -> None:
    for text, status, parts in (
        ("", Status.NO_TARGET, {"phrase"}),
        ("a cat", Status.OK, {"phrase"}),
        ("a" * (MAX_PHRASE + 1), Status.BAD_VALUES, set()),
        ("<think>t</think>", Status.NO_ANSWER, {"think"}),
    ):
        answer = answers.parse(text, "words")
        assert (answer.status, answer.parts) == (status, parts)


def test_names_and_get() -> None:
    assert {"seg-r1", "sam-r1", "points-only", "json-list", "seg-zero", "think2seg"} <= set(ALL)
    assert set(answers.NATIVE_FORMATS.values()) <= set(ALL)
    assert [answers.get(name).name for name in ALL] == list(ALL)
    with pytest.raises(SegrlError, match="did you mean 'sam-r1'"):
        answers.get("sam_r1")
    with pytest.raises(SegrlError, match="no answer format 'xml'"):
        answers.parse("", "xml")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("the red circle", "Identify and segment the red circle"),
        (" the {red} circle\n", "Identify and segment the {red} circle"),
        (
            "Identify and segment all the primary objects in the image.",
            "Identify and segment all the primary objects in the image.",
        ),
        ("What would a cat sleep on?", "What would a cat sleep on?"),
    ],
)
@pytest.mark.parametrize("name", ["seg-r1", "points-only"])
def test_seg_r1_prompt(name: str, query: str, expected: str) -> None:
    assert answers.get(name).prompt(query) == expected
    assert "<points>" in answers.get(name).system


@pytest.mark.parametrize("name", ["sam-r1", "json-list", "seg-zero", "think2seg"])
def test_json_prompts_hold_the_query_and_an_example_that_parses(name: str) -> None:
    text = answers.get(name).prompt(" the {red} cup ")
    assert '"the {red} cup"' in text
    example = answers.parse(text[text.index("Example:") :], name)
    assert example.status is Status.OK
    assert example.parts == answers.get(name).required_parts


def test_renderings() -> None:
    prompts = [MaskPrompt((248.4, 217.5, 395, 300), ((360, 237), (268.2, 262)), (1, 0)), OTHER]
    render = {name: answers.get(name).render for name in ALL}
    assert render["seg-r1"](prompts[:1], "why") == (
        "<think>why</think> <bbox>[248,218,395,300]</bbox>, <points>[[360,237],[268,262]]</points>, "
        "<labels>[1,0]</labels>"
    )
    assert render["points-only"](prompts, "why") == (
        "<points>[[360,237],[268,262],[150,150]]</points>, <labels>[1,0,1]</labels>"
    )
    assert render["sam-r1"](prompts[:1], "why") == (
        "<think>why</think> To generate the mask of the target object, "
        '<answer>{"bbox": [248,218,395,300], "points": [[360,237,1],[268,262,0]]}</answer>'
    )
    assert render["json-list"](prompts, "why") == (
        '<think>why</think><answer>[{"bbox_2d": [248,218,395,300], "point_2d": [360,237]}, '
        '{"bbox_2d": [100,100,200,200], "point_2d": [150,150]}]</answer>'
    )
    assert render["seg-zero"](prompts, "why") == (
        '<think>why</think><answer>[{"bbox": [248,218,395,300], "points_1": [360,237]}, '
        '{"bbox": [100,100,200,200], "points_1": [150,150]}]</answer>'
    )
    assert render["seg-zero"]([MaskPrompt((1, 2, 30, 40), ((5, 6), (7, 8), (9, 9)), (1, 1, 1))], "").endswith(
        '<answer>{"bbox": [1,2,30,40], "points_1": [5,6], "points_2": [7,8]}</answer>'
    )
    assert render["seg-r1"]([], "") == "<think></think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>"


def test_what_a_format_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="without points"):
        answers.get("points-only").render([BOX])
    with pytest.raises(ValueError, match="background points"):
        answers.get("json-list").render([MaskPrompt(None, ((1, 1),), (0,))])
    with pytest.raises(ValueError, match="background points"):
        answers.get("seg-zero").render([MaskPrompt(None, ((1, 1),), (0,))])
    for name in ("seg-r1", "sam-r1", "json-list", "seg-zero"):
        with pytest.raises(ValueError, match="think tags"):
            answers.get(name).render([FOREGROUND], "a </think> b")


def test_the_docstrings_examples() -> None:
    assert doctest.testmod(answers) == (0, 2)
    assert doctest.testmod(lenient) == (0, 1)
