"""Words as mask prompts: the formats, what segmenters take, the stand-in without weights, and the policy `words`."""

from __future__ import annotations

import numpy as np
import pytest
from word_scene import scene

import segrl
from segrl import answers, policies, segmenters
from segrl.coordinates import convert, to_original
from segrl.datasets import load
from segrl.errors import ModelError
from segrl.loading import fitting_segmenter, make_text_to_masks
from segrl.segmenters.loading import takes_words
from segrl.segmenters.shapes import understood
from segrl.types import ORIGINAL, RELATIVE_1000, Answer, MaskPrompt, Status

CONCEPT = answers.get("concept")


def ask(**prompt) -> segrl.types.Segmentation:
    answer = Answer(Status.OK, (MaskPrompt(frame=ORIGINAL, **prompt),))
    return segmenters.segment(segmenters.load("shapes"), [scene()], [answer])[0]


def boxes(found) -> list[tuple[float, ...]]:
    return sorted(prompt.box_xyxy for prompt in found.answer.prompts)


def test_a_phrase_finds_every_instance_and_each_is_an_object():
    found = ask(phrase="the red objects")
    assert len(found.masks) == len(found.answer.prompts) == 2
    assert all(prompt.phrase == "the red objects" for prompt in found.answer.prompts)
    assert [round(box[0]) for box in boxes(found)] == [20, 20]


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ({"phrase": "red square"}, 1),
        ({"phrase": "square"}, 2),
        ({"phrase": "red", "box_xyxy": (15.0, 70.0, 60.0, 110.0)}, 1),
        ({"phrase": "red", "points_xy": ((35.0, 90.0),), "labels": (1,)}, 1),
        ({"exemplars_xyxy": ((70.0, 20.0, 105.0, 55.0),), "exemplar_labels": (1,)}, 1),
        ({"phrase": "red", "exemplars_xyxy": ((20.0, 20.0, 60.0, 60.0),), "exemplar_labels": (0,)}, 1),
        ({"box_xyxy": (68.0, 18.0, 107.0, 57.0)}, 1),
    ],
)
def test_words_box_points_and_examples_each_choose(prompt: dict, count: int):
    found = ask(**prompt)
    assert found.answer.status is Status.OK
    assert len(found.masks) == count
    assert found.masks.any(dim=(1, 2)).all()


def test_words_that_find_nothing_say_nothing_there_and_a_box_never_does():
    assert ask(phrase="the green star").answer.status is Status.NO_TARGET
    assert ask(phrase="people").answer.status is Status.NO_TARGET
    marked = ask(phrase="blue", box_xyxy=(10.0, 70.0, 60.0, 110.0))
    assert (marked.answer.status, bool(marked.masks.any())) == (Status.OK, False)


def test_the_first_noun_phrase_is_understood():
    assert understood("the red ring and the blue star") == understood("red ring")
    assert understood("all large shapes").colours == frozenset()
    assert understood("the cat") is None


def test_most_objects_of_the_tiny_world_are_found_by_name():
    shapes, overlaps = segmenters.load("shapes"), []
    for example in load("tiny", n=12, seed=9100, gold="tight", says="words"):
        answer = Answer(Status.OK, example.meta["prompts"])
        found = segmenters.segment(shapes, [example.image], [answer])[0].union.numpy()
        overlaps.append((found & example.truth).sum() / (found | example.truth).sum())
    assert np.mean(overlaps) > 0.6


@pytest.mark.parametrize(
    "prompts",
    [
        [MaskPrompt(phrase="red ring")],
        [MaskPrompt((1, 2, 30, 40), phrase="red ring"), MaskPrompt((5, 6, 7, 8))],
        [MaskPrompt((1, 2, 30, 40), phrase="ring", exemplars_xyxy=((3, 4, 5, 6),), exemplar_labels=(0,))],
        [],
    ],
)
@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_concept_is_read_as_it_is_written(prompts: list[MaskPrompt], reading: str):
    text = CONCEPT.render(prompts, "it is red")
    found = CONCEPT.parse(text, reading=reading)
    assert found.prompts == tuple(prompts)
    assert found.status is (Status.OK if prompts else Status.NO_TARGET)
    assert found.reasoning == "it is red"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('<answer>[{"label": "x"}]</answer>', Status.BAD_VALUES),
        ('<answer>[{"phrase": ""}]</answer>', Status.BAD_VALUES),
        ('<answer>[{"phrase": 3}]</answer>', Status.BAD_VALUES),
        ('<answer>[{"phrase": "x"', Status.BAD_SYNTAX),
    ],
)
def test_what_is_no_phrase_is_refused(text: str, status: Status):
    assert CONCEPT.parse(text).status is status


def test_the_lenient_reading_keeps_whole_phrases_of_a_broken_answer():
    found = CONCEPT.parse(
        '<answer>[{"phrase": "cup", "bbox_2d": [1, 2, 30, 40]}, {"phrase": "dog", ', reading="lenient"
    )
    assert [(prompt.phrase, prompt.box_xyxy) for prompt in found.prompts] == [("cup", (1, 2, 30, 40)), ("dog", None)]
    assert found.repairs


def test_example_boxes_change_frame_and_are_cut_to_the_image():
    prompt = MaskPrompt(phrase="x", exemplars_xyxy=((0, 0, 500, 2000),), exemplar_labels=(1,), frame=RELATIVE_1000)
    assert convert(prompt, ORIGINAL, (100, 50)).exemplars_xyxy == ((0, 0, 50, 100),)
    (inside,) = to_original(Answer(Status.OK, (prompt,)), (100, 50)).prompts
    assert inside.exemplars_xyxy == ((0, 0, 50, 50),)
    assert MaskPrompt.from_json(inside.to_json(), ORIGINAL) == inside


def test_a_segmenter_without_words_refuses_in_a_line():
    grabcut = segmenters.load("grabcut")
    with pytest.raises(ModelError, match="GrabCut does not take"):
        segmenters.segment(grabcut, [scene()], [Answer(Status.OK, (MaskPrompt(phrase="x", frame=ORIGINAL),))])
    with pytest.raises(ModelError, match="answer format words needs words"):
        make_text_to_masks(policies.load("words"), grabcut)


def test_the_policy_words_sends_the_query_itself():
    model = segrl.load("words", segmenter="shapes")
    result = model.segment(scene(), "the red square")
    assert (result.text, result.status, len(result.masks)) == ("the red square", Status.OK, 1)
    assert result.confidence.shape == (1,)
    with pytest.raises(ModelError, match="takes no frame"):
        policies.load("words", frame="original")


def test_which_segmenter_goes_with_words(tmp_path):
    assert fitting_segmenter("words") == fitting_segmenter("tiny", "concept") == "concept:facebook/sam3"
    assert (takes_words("shapes"), takes_words("concept:x/y"), takes_words("grabcut")) == (True, True, False)
    (tmp_path / "config.json").write_text('{"model_type": "sam3_lite_text"}')
    assert takes_words(str(tmp_path))
