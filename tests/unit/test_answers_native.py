"""The answers that families write by themselves: what is asked, what is read, and in which frame."""

from __future__ import annotations

import pytest

from segrl import answers
from segrl.policies.frames import FAMILY_FRAMES, family_of
from segrl.policies.settings import PolicySettings, answer_format_of
from segrl.types import RELATIVE_1000, MaskPrompt, Status

A, B = (10, 20, 110, 220), (210, 20, 310, 220)
TWO = [MaskPrompt(A), MaskPrompt(B)]


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("qwen2-vl", "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(10,20),(110,220)<|box_end|>", TWO[:1]),
        (
            "qwen2-vl",
            "It is <|box_start|>(10,20),(110,220)<|box_end|> and <|box_start|>(210,20),(310,220)<|box_end|>.",
            TWO,
        ),
        ("qwen2-vl", "<|box_start|>(10,20),(110,220),(210,20),(310,220)<|box_end|>", TWO),
        ("qwen-json", '```json\n[\n\t{"bbox_2d": [10, 20, 110, 220], "label": "dog"}\n]\n```', TWO[:1]),
        ("qwen-json", '[{"point_2d": [5, 6], "label": "dog"}]', [MaskPrompt(None, ((5, 6),), (1,))]),
        ("internvl", "<ref>the dog</ref><box>[[10, 20, 110, 220]]</box>", TWO[:1]),
        ("internvl", "<ref>dogs</ref><box>[[10, 20, 110, 220], [210, 20, 310, 220]]</box>", TWO),
        ("internvl", "<ref>a</ref><box>[10, 20, 110, 220]</box> and <ref>b</ref><box>[[210,20,310,220]]</box>", TWO),
        ("molmo", ' <point x="10.5" y="20.1" alt="dog">dog</point>', [MaskPrompt(None, ((105, 201),), (1,))]),
        (
            "molmo",
            '<points x1="10.5" y1="20.1" x2="1.1" y2="0.7" alt="dogs">dogs</points>',
            [MaskPrompt(None, ((105, 201),), (1,)), MaskPrompt(None, ((11, 7),), (1,))],
        ),
        ("gemini", '```json\n[{"box_2d": [20, 10, 220, 110], "label": "dog"}]\n```', TWO[:1]),
        ("gemini", '[{"point": [6, 5], "label": "dog"}]', [MaskPrompt(None, ((5, 6),), (1,))]),
    ],
)
def test_native_answers_are_read(name: str, text: str, prompts: list[MaskPrompt]) -> None:
    """CASES 4."""
    for reading in ("strict", "lenient"):
        answer = answers.parse(text, name, reading=reading)  # type: ignore[arg-type]
        assert list(answer.prompts) == prompts, answer.detail
        assert answer.repairs == ()


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("qwen2-vl", "<|box_start|><|box_end|>", Status.NO_TARGET),
        ("qwen2-vl", "<|box_start|>(10,20),(110)<|box_end|>", Status.BAD_VALUES),
        ("qwen2-vl", "<|box_start|>(10,20)<|box_end|>", Status.BAD_VALUES),
        ("qwen2-vl", "<|box_end|>", Status.BAD_SYNTAX),
        ("qwen2-vl", "<|box_start|>(10,20),(110,220)", Status.BAD_SYNTAX),
        ("internvl", "<box>[]</box>", Status.NO_TARGET),
        ("internvl", "<box>[[10,20,110]]</box>", Status.BAD_VALUES),
        ("internvl", "<box>[[10,20,110,220]]", Status.BAD_SYNTAX),
        ("molmo", "There are none.", Status.NO_TARGET),
        ("molmo", " This isn't in the image.", Status.NO_TARGET),
        ("molmo", '<point x="10.5" alt="dog">dog</point>', Status.BAD_VALUES),
        ("molmo", "<point x=10.5 y=20.1>dog</point>", Status.BAD_SYNTAX),
        ("molmo", "I see a dog.", Status.NO_ANSWER),
        ("gemini", "[]", Status.NO_TARGET),
        ("gemini", '[{"box_2d": [220, 10, 20, 110]}]', Status.BAD_VALUES),
        ("qwen-json", "```json\n[]\n```", Status.NO_TARGET),
    ],
)
def test_native_statuses(name: str, text: str, status: Status) -> None:
    assert answers.parse(text, name).status is status


def test_the_requests_are_those_that_the_families_know() -> None:
    """Each as its source has it; see the formats."""
    asked = {name: answers.get(name).prompt(" the red car ") for name in ("qwen-json", "qwen2-vl", "molmo", "internvl")}
    assert asked == {
        "qwen-json": 'Locate every object that matches the description "the red car" in the image. '
        "Report bbox coordinates in JSON format.",
        "qwen2-vl": "Detect the bounding box of the red car.",
        "molmo": "Point to the red car\nPlease say 'This isn't in the image.' if it is not in the image.",
        "internvl": "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>the red car</ref>",
    }


def test_gemini_is_read_y_first_leniently_too() -> None:
    text = '[{"box_2d": [20, 10, 220, 110]}, {"box_2d": [20, 210, 220, 310]'
    assert list(answers.parse(text, "gemini", reading="lenient").prompts) == TWO
    assert list(answers.parse("[20, 10, 220, 110]", "gemini", reading="lenient").prompts) == TWO[:1]


def test_cut_points_of_molmo_keep_the_whole_ones() -> None:
    text = '<points x1="10.5" y1="20.1" x2="1'
    answer = answers.parse(text, "molmo", truncated=True, reading="lenient")
    assert answer.prompts == (MaskPrompt(None, ((105, 201),), (1,), RELATIVE_1000),)


@pytest.mark.parametrize("name", sorted(set(answers.NATIVE_FORMATS.values())))
def test_the_request_holds_the_query(name: str) -> None:
    assert "the {red} cup" in answers.get(name).prompt(" the {red} cup ")
    assert answers.get(name).system == ""


def test_what_a_native_format_cannot_say_is_refused() -> None:
    point = MaskPrompt(None, ((1, 1),), (1,))
    for name in ("qwen2-vl", "internvl"):
        with pytest.raises(ValueError, match="cannot say points without a box"):
            answers.get(name).render([point])
    with pytest.raises(ValueError, match="cannot say a prompt without a foreground point"):
        answers.get("molmo").render([MaskPrompt(A)])
    for name in ("qwen-json", "gemini"):
        with pytest.raises(ValueError, match="background points"):
            answers.get(name).render([MaskPrompt(None, ((1, 1),), (0,))])


def test_the_family_chooses_the_format_and_the_frame() -> None:
    assert answers.NATIVE_FORMATS.keys() == FAMILY_FRAMES.keys()
    names = {"Qwen/Qwen2-VL-7B-Instruct": "qwen2-vl", "Qwen/Qwen2.5-VL-7B-Instruct": "qwen-json"}
    names |= {"Qwen/Qwen3-VL-8B-Instruct": "qwen-json", "OpenGVLab/InternVL3-8B-hf": "internvl"}
    names |= {"allenai/Molmo-7B-D-0924": "molmo", "gemini-2.5-flash": "gemini", "my-model": "json-list"}
    for model, expected in names.items():
        assert answer_format_of(PolicySettings(), family_of(model)) == expected
        assert answer_format_of(PolicySettings("seg-r1"), family_of(model)) == "seg-r1"
