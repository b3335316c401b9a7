"""What each format reads, by example: status by status."""

from __future__ import annotations

import pytest

from segrl import answers
from segrl.answers.mask_prompts import MAX_BOXES, MAX_POINTS
from segrl.types import MaskPrompt, Status

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


def zero(body: str) -> str:
    return f"<think>t</think>\n<answer>{body}</answer>"


TWO = MaskPrompt((1, 2, 30, 40), ((5, 6), (7, 8)), (1, 1))
READ = [
    ("seg-r1", f"<think>it is left</think> {TAGS}", [BOTH]),
    ("seg-r1", TAGS.replace(", <", "<"), [BOTH]),
    ("seg-r1", TAGS.replace(", <", "\n\nand then\n<"), [BOTH]),
    ("seg-r1", f"```\n{TAGS}\n```<|im_end|>", [BOTH]),
    ("seg-r1", f"<answer>{TAGS}</answer>", [BOTH]),
    ("seg-r1", "<labels>[1,0]</labels><points>[[5,6],[7,8]]</points><bbox>[1,2,30,40]</bbox>", [BOTH]),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox>", [BOX]),
    ("seg-r1", seg(points="[]", labels="[]"), [BOX]),
    ("seg-r1", "<points>[[5,6],[7,8]]</points> <labels>[1,0]</labels>", [POINTS]),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox><bbox>[100,100,200,200]</bbox>", [BOX, MaskPrompt((100, 100, 200, 200))]),
    ("seg-r1", "<bbox>[[1,2,30,40],[100,100,200,200]]</bbox>", [BOX, MaskPrompt((100, 100, 200, 200))]),
    ("seg-r1", f"{TAGS}, {seg('[100,100,200,200]', '[[150,150]]', '[1]')}", [BOTH, OTHER]),
    ("seg-r1", seg(" [ 1 , 2.0, 3e1, 040, ] ", "[[5,6,],[7,8],]", "[1.0,0,]"), [BOTH]),
    ("seg-r1", seg("```json\n[1,2,30,40]\n```", "```\n[[5,6],\n[7,8]]```"), [BOTH]),
    ("seg-r1", seg("(1,2,30,40)", "[(5,6),(7,8)]", "(1,0)"), [BOTH]),
    ("seg-r1", seg("[1,2,30,40],", "[[+5,6.],[7,8]] , "), [BOTH]),
    ("seg-r1", "<bbox>[-1.25,.5,30.125,1e2]</bbox>", [MaskPrompt((-1.25, 0.5, 30.125, 100))]),
    ("seg-r1", "<bbox>[0.1,007,30,40]</bbox>", [MaskPrompt((0.1, 7, 30, 40))]),
    ("points-only", "<points>[[5,6],[7,8]]</points>, <labels>[1,0]</labels>", [POINTS]),
    ("points-only", f"<think>t</think> {TAGS}", [POINTS]),
    ("points-only", "<bbox>oops" + TAGS[TAGS.index(",") :], [POINTS]),
    ("sam-r1", sam('{"bbox": [1,2,30,40], "points": [[5,6,1],[7,8,0]]}'), [BOTH]),
    ("sam-r1", sam("\n```json\n{'bbox': [1,2,30,40,], 'points': [[5,6,1],[7,8,0],],}\n```\n"), [BOTH]),
    ("sam-r1", sam('{"points": [[5,6,1],[7,8,0.0]], "why": "a \\" quote", "bbox": [1,2,30,40]}'), [BOTH]),
    ("sam-r1", sam('{"bbox": [1,2,30,40], "points": []}'), [BOX]),
    ("sam-r1", sam('{"bbox": [1,2,30,40]}'), [BOX]),
    ("sam-r1", sam('{"points": [[5,6,1],[7,8,0]]}'), [POINTS]),
    (
        "sam-r1",
        sam('{"bbox": [[1,2,30,40],[100,100,200,200]],"points": [[5,6,1],[7,8,0],[150,150,1]]}'),
        [BOTH, OTHER],
    ),
    (
        "sam-r1",
        sam(
            '[{"bbox": [1,2,30,40], "points": [[5,6,1],[7,8,0]]}, {"bbox": [100,100,200,200], "points": [[150,150,1]]}]'
        ),
        [BOTH, OTHER],
    ),
    ("sam-r1", sam("{}") + '<answer>{"bbox": [1,2,30,40], "points": []}</answer>', [BOX]),
    ("json-list", '<answer>[{"bbox_2d": [1,2,30,40], "point_2d": [5,6]}]</answer>', [FOREGROUND]),
    (
        "json-list",
        '<answer>[{"bbox_2d":[1,2,30,40],"point_2d":[5,6]},{"bbox_2d":[100,100,200,200],"point_2d":[150,150]}]</answer>',
        [FOREGROUND, OTHER],
    ),
    ("json-list", '[{"bbox_2d": [1,2,30,40]}]', [BOX]),
    ("json-list", '{"bbox_2d": [1,2,30,40], "label": "cat"}', [BOX]),
    ("json-list", 'Here [it] is:\n```json\n[\n\t{"bbox_2d": [1,2,30,40], "label": "cat"},\n]\n```\nDone.', [BOX]),
    ("json-list", "<think>t</think> [{'bbox_2d': [1,2,30,40], 'point_2d': [[5,6]]}] <|im_end|>", [FOREGROUND]),
    ("json-list", '<answer>[{"point_2d": [5,6]}]</answer>', [MaskPrompt(None, ((5, 6),), (1,))]),
    (
        "json-list",
        '<answer>[{"bbox_2d": [1,2,30,40]},{"bbox_2d": [1,2,30,40], "point_2d": [900,900]}]</answer>',
        [BOX, MaskPrompt((1, 2, 30, 40), ((900, 900),), (1,))],
    ),
    ("json-list", '<answer>```json\n[{"bbox_2d": [1,2,30,40], "label": "cat"}]\n```</answer>', [BOX]),
    ("json-list", '```json\n{"bbox_2d": [1,2,30,40]}\n```', [BOX]),
    ("seg-zero", zero('{"bbox": [1,2,30,40], "points_1": [5,6], "points_2": [7,8]}'), [TWO]),
    (
        "think2seg",
        '<answer>```json\n[{"bbox_2d": [1,2,30,40], "positive_points": [[5,6]]}]\n```</answer>',
        [FOREGROUND],
    ),
    ("think2seg", '[{"positive_points": [[5,6], [7,8]]}]', [MaskPrompt(None, ((5, 6), (7, 8)), (1, 1))]),
    ("seg-zero", zero("{'bbox': [1,2,30,40], 'points_1': [5,6], 'points_2': [7,8]}"), [TWO]),
    ("seg-zero", zero('```json\n{"points_2": [7,8], "points_1": [5,6], "bbox": [1,2,30,40]}\n```'), [TWO]),
    ("seg-zero", '{"bbox": [1,2,30,40], "points_1": [5,6], "points_2": [7,8], "why": "red"} so', [TWO]),
    ("seg-zero", '```json\n{"bbox": [1,2,30,40], "points_2": [5,6]}\n```', [FOREGROUND]),
    ("seg-zero", zero('{"bbox": [1,2,30,40]}'), [BOX]),
    ("seg-zero", zero('{"bbox": [1,2,30,40], "points_1": [], "points_2": [5,6]}'), [FOREGROUND]),
    ("seg-zero", zero('{"points_1": [5,6], "points_2": [7,8]}'), [MaskPrompt(None, ((5, 6), (7, 8)), (1, 1))]),
    ("seg-zero", zero('[{"bbox": [1,2,30,40]}, {"bbox": [100,100,200,200], "points_1": [150,150]}]'), [BOX, OTHER]),
]


@pytest.mark.parametrize(("name", "text", "prompts"), READ)
def test_is_read(name: str, text: str, prompts: list[MaskPrompt]) -> None:
    answer = answers.parse(text, name)
    assert answer.status is Status.OK, answer.detail
    assert list(answer.prompts) == prompts
    assert answer.detail == ""


NO_TARGET = [
    ("seg-r1", seg("[]", "[]", "[]")),
    ("seg-r1", "<think>none</think> " + seg("[ ]", "```json\n[]\n```", "[],")),
    ("points-only", "<points>[]</points>, <labels>[]</labels>"),
    ("sam-r1", sam('{"bbox": [], "points": []}')),
    ("sam-r1", sam("```\n{'points': [], 'bbox': []}\n```")),
    ("json-list", "<answer>[]</answer>"),
    ("json-list", "<think>none</think> ```json\n[]\n```"),
    ("seg-zero", zero('{"bbox": [], "points_1": [], "points_2": []}')),
    ("seg-zero", '{"bbox": [], "points_2": [], "points_1": []}'),
]


@pytest.mark.parametrize(("name", "text"), NO_TARGET)
def test_nothing_there(name: str, text: str) -> None:
    answer = answers.parse(text, name)
    assert answer.status is Status.NO_TARGET, answer.detail
    assert answer.prompts == ()
    assert answers.get(name).required_parts - answer.parts <= {"think", "answer"}


BAD_BOXES = [
    "[1,2,30]",
    "[1,2,30,40,50]",
    "[1,2,1,40]",
    "[30,2,1,40]",
    "[1,40,30,2]",
    "[1,2,30,true]",
    "[1,2,30,True]",
    "[1,2,30,null]",
    '[1,2,30,"40"]',
    "[1,2,30,NaN]",
    "[1,2,30,Infinity]",
    "[-inf,2,30,40]",
    "[1,2,30,1e999]",
    "[1,2,30," + "9" * 5000 + "]",
    "[1,2,30,[40]]",
    "[[1,2,30,40],[1,2,30]]",
    "[[]]",
    "7",
    '"a box"',
    "{}",
    "true",
]
BAD_POINTS = [("[[5]]", "[1]"), ("[[5,6,7]]", "[1]"), ("[5,6]", "[1]"), ("[[5,true]]", "[1]"), ("[[5,1e999]]", "[1]")]
BAD_POINTS += [("[[5,nan]]", "[1]"), ("7", "[1]"), ("[[]]", "[1]"), ("[[5,6]]", "1"), ("[[5,6]]", "[]"), ("[]", "[1]")]
BAD_POINTS += [("[[5,6]]", f"[{label}]") for label in ("2", "-1", "0.5", "true", "false", "null", '"1"', "[1]", "NaN")]
BAD_POINTS += [("[[5,6]]", "[1,0]"), ("[[5,6],[7,8]]", "[1]"), ("{}", "{}")]

BAD_XY = ["[5]", "[5,6,1]", "[[5,6]]", "7", "null", '"5,6"', "{}", "[5,true]", "[5,1e999]", "[NaN,5]"]

BAD_VALUES = [
    *(("seg-r1", seg(box)) for box in BAD_BOXES),
    *(("sam-r1", sam(f'{{"bbox": {box}, "points": []}}')) for box in BAD_BOXES),
    *(("json-list", f'<answer>[{{"bbox_2d": {box}}}]</answer>') for box in [*BAD_BOXES, "[]"]),
    *(("seg-r1", seg("[1,2,30,40]", *pair)) for pair in BAD_POINTS),
    *(("points-only", seg("[1,2,30,40]", *pair)) for pair in BAD_POINTS),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox> <points>[[5,6]]</points>"),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox> <labels>[1]</labels>"),
    ("seg-r1", "<bbox>[]</bbox>"),
    ("seg-r1", "<points>[]</points><labels>[]</labels>"),
    ("seg-r1", seg("[]")),
    ("seg-r1", "<bbox>[]</bbox>" + TAGS),
    ("seg-r1", "<points>[[1,1]]</points><points>[[2,2],[3,3]]</points><labels>[1,1]</labels><labels>[1]</labels>"),
    ("points-only", "<points>[[5,6]]</points>"),
    ("points-only", "<labels>[1]</labels>"),
    ("sam-r1", sam("{}")),
    ("sam-r1", sam("[]")),
    ("sam-r1", sam("[1,2,30,40]")),
    ("sam-r1", sam('{"bbox": []}')),
    ("sam-r1", sam('{"points": []}')),
    ("sam-r1", sam('{"bbox": [], "points": [[5,6,1]]}')),
    ("sam-r1", sam('{"bbox": [1,2,30,40], "points": [[5,6]]}')),
    ("sam-r1", sam('{"bbox": [1,2,30,40], "points": [[5,6,2]]}')),
    ("sam-r1", sam('{"bbox": [1,2,30,40], "points": [[5,6,true]]}')),
    ("sam-r1", sam('{"bbox": null, "points": []}')),
    ("sam-r1", sam('[{"bbox": [1,2,30,40]}, {"bbox": [], "points": []}]')),
    ("json-list", "<answer>[{}]</answer>"),
    ("json-list", '<answer>[{"label": "cat"}]</answer>'),
    ("json-list", '<answer>[{"bbox_2d": [1,2,30,40]}, [1,2,30,40]]</answer>'),
    ("json-list", '<answer>[{"point_2d": []}]</answer>'),
    ("json-list", '<answer>[{"point_2d": [5,6,1]}]</answer>'),
    ("json-list", '<answer>[{"point_2d": [5,false]}]</answer>'),
    ("json-list", "[[1,2,30,40]]"),
    *(("seg-zero", zero(f'{{"bbox": {box}, "points_1": [5,6], "points_2": [7,8]}}')) for box in [*BAD_BOXES, "[]"]),
    *(("seg-zero", zero(f'{{"bbox": [1,2,30,40], "points_1": {xy}}}')) for xy in BAD_XY),
    *(("seg-zero", zero(f'{{"points_1": [5,6], "points_2": {xy}}}')) for xy in BAD_XY),
    ("seg-zero", zero('{"bbox": [[1,2,30,40],[1,2,30,40]]}')),
    ("think2seg", '[{"negative_points": [[5,6]]}]'),
    ("seg-zero", zero("{}")),
    ("seg-zero", zero("[]")),
    ("seg-zero", zero('{"points_1": [], "points_2": []}')),
    ("seg-zero", zero('[{"bbox": []}, {"bbox": [1,2,30,40]}]')),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox>" * (MAX_BOXES + 1)),
    ("seg-r1", f"<bbox>[{'[1,2,30,40],' * (MAX_BOXES + 1)}]</bbox>"),
    ("seg-r1", seg(points="[" + "[5,6]," * (MAX_POINTS + 1) + "]", labels="[" + "1," * (MAX_POINTS + 1) + "]")),
    ("sam-r1", sam('{"points": [' + "[5,6,1]," * (MAX_POINTS + 1) + "]}")),
    ("sam-r1", sam("[" + '{"bbox": [[1,2,30,40],[1,2,30,40]]},' * MAX_BOXES + "]")),
    ("json-list", "[" + '{"bbox_2d": [1,2,30,40]},' * (MAX_BOXES + 1) + "]"),
    ("json-list", '[{"point_2d": [' + "[5,6]," * MAX_POINTS + ']}, {"point_2d": [5,6]}]'),
]


@pytest.mark.parametrize(("name", "text"), BAD_VALUES)
def test_bad_values(name: str, text: str) -> None:
    answer = answers.parse(text, name)
    assert answer.status is Status.BAD_VALUES, answer
    assert answer.prompts == ()
    assert answer.detail
    assert "\n" not in answer.detail
    assert len(answer.detail) < 200


BROKEN = ["", "[1,2,30,40", "1,2,30,40]", "[1,2,30,40)", "[1,,2]", "[,1]", "[1 2]", "[1,2,30,40] or so", "a box", "[x]"]
BROKEN += ["[1,2,30,4_0]", "[1,2,30,0x10]", "[1,2,30,40px]", "[1;2]", "[" * 100_000, "[[1,2],,]", "import os", "[1--2]"]
BROKEN += ["[1,2,30,4०]", '"', "'", '"\\', "{", "{1: 2}", '{"a" 1}', '{"a":}', '{"a": 1, , }', '{"a"}', "{[1]: 2}", ":"]

BAD_SYNTAX = [
    *(("seg-r1", seg(broken)) for broken in BROKEN),
    *(("points-only", seg(points=broken)) for broken in BROKEN),
    *(("sam-r1", sam(broken)) for broken in BROKEN),
    *(("json-list", f"<answer>{broken}</answer>") for broken in BROKEN),
    *(("seg-zero", zero(broken)) for broken in BROKEN),
    ("seg-r1", seg("[true]", "[")),
    ("seg-r1", "<bbox>[1,2,30,40]"),
    ("seg-r1", "[1,2,30,40]</bbox>"),
    ("seg-r1", "<bbox>[1,2,30,40]</points>"),
    ("seg-r1", "<bbox>[1,2,30,40]</bbox> <points>[[5,6]]"),
    ("seg-r1", "<bbox><bbox>[1,2,30,40]</bbox></bbox>"),
    ("points-only", "<points><labels>[1]</labels></points>"),
    ("sam-r1", "<answer>{}"),
    ("sam-r1", "</answer>"),
    ("sam-r1", sam('{"bbox": [1,2,30,40]} and more')),
    ("json-list", "<answer>[]"),
    ("json-list", '[{"bbox_2d": [1,2,30,40]'),
    ("json-list", "see [1"),
]


@pytest.mark.parametrize(("name", "text"), BAD_SYNTAX)
def test_bad_syntax(name: str, text: str) -> None:
    answer = answers.parse(text, name)
    assert answer.status is Status.BAD_SYNTAX, answer
    assert answer.detail
    assert len(answer.detail) < 200


@pytest.mark.parametrize("name", [name for name in ALL if name != "words"])  # to which every text is a phrase
@pytest.mark.parametrize("text", ["", "I see nothing.", "<think>t</think>", "<think>", "</think>", "<bbox", "\ud800"])
def test_no_answer(name: str, text: str) -> None:
    assert answers.parse(text, name).status is Status.NO_ANSWER
    assert answers.parse(text, name, truncated=True).status is Status.TRUNCATED
