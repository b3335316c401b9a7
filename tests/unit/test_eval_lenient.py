"""The lenient reading stands beside the strict one and changes none of its numbers; hints about the frame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from segrl import segmenters
from segrl.cli.evaluation_tables import answers_line, reading_lines
from segrl.evaluation import Decoding, EvalRecord
from segrl.evaluation.replay import Replay
from segrl.evaluation.result import result
from segrl.evaluation.run import evaluate_window
from segrl.evaluation.table import tabulate
from segrl.loading import make_text_to_masks
from segrl.masks import box_to_mask
from segrl.policies import Completion
from segrl.types import RELATIVE_1000, Example, Status

RIGHT = "<bbox>[400,200,800,600]</bbox>"
UNCLOSED = "<bbox>[400,200,800,600]"
NONE_IN_WORDS = "There is no cup in this image."
BEYOND = "<bbox>[40,1100,80,1300]</bbox>"
FRACTIONS = "<bbox>[0.4,0.2,0.8,0.6]</bbox>"


def example(place: int, there: bool) -> Example:
    truth = box_to_mask((40, 10, 80, 30), (50, 100))[None] if there else np.zeros((0, 50, 100), dtype=bool)
    return Example(f"e{place}", f"i{place}", Image.new("RGB", (100, 50), (place, 0, 0)), "the cup", truth)


def records(*texts: str, nothing_at: Sequence[int] = (), decoding: Decoding | None = None) -> list[EvalRecord]:
    examples = [example(place, place not in nothing_at) for place in range(len(texts))]
    groups = tuple((Completion(text),) for text in texts)
    policy = Replay("seg-r1", lambda image_wh: RELATIVE_1000, groups)
    return evaluate_window(policy, make_text_to_masks(policy, segmenters.load("box")), examples, decoding or Decoding())


def test_the_strict_reading_counts_and_the_lenient_one_stands_beside_it():
    right, unclosed, none = rows = records(RIGHT, UNCLOSED, NONE_IN_WORDS, nothing_at=[2])
    assert (right.lenient, right.iou) == ({}, 1.0)
    assert (unclosed.status.is_failure, unclosed.iou) == (True, 0.0)
    assert (unclosed.lenient["status"], unclosed.lenient["iou"]) == ("ok", 1.0)
    assert unclosed.lenient["repairs"]
    found = result(tabulate(rows))
    assert found["metrics"]["giou"]["value"] == pytest.approx(1 / 3)
    assert found["variants"]["lenient_reading"]["metrics"]["giou"]["value"] == pytest.approx(2 / 3)
    assert found["variants"]["lenient_reading"]["metrics"]["parse_rate"]["value"] == pytest.approx(2 / 3)
    assert found["lenient"] == {"changed": 1, "failures_read": 1}
    assert none.says_none
    lines = list(reading_lines(found))
    assert lines[0].startswith("lenient gIoU 0.667")
    assert "parses 1 failures" in lines[0]


def test_failures_that_say_none_in_words_are_counted_apart():
    found = result(tabulate(records(RIGHT, NONE_IN_WORDS, NONE_IN_WORDS, nothing_at=[2])))
    assert found["none_in_words"] == {"n": 2, "right": 1}
    assert found["metrics"]["giou"]["value"] == pytest.approx(1 / 3)
    assert found["variants"]["none_in_words_counts"]["metrics"]["giou"]["value"] == pytest.approx(2 / 3)
    assert "2 of them say in words that nothing is there" in answers_line(found)


def test_records_keep_it_and_older_ones_are_read_without():
    (record,) = records(UNCLOSED)
    row = json.loads(json.dumps(record.to_json()))
    assert EvalRecord.from_json(row) == record
    older = {key: value for key, value in row.items() if key not in ("lenient", "says_none")}
    read = EvalRecord.from_json(older)
    assert (read.lenient, read.says_none) == (None, False)
    found = result(tabulate([read]))
    assert found["lenient"] is None
    assert "lenient_reading" not in found["variants"]
    assert list(reading_lines(found)) == []


def test_a_vote_has_no_lenient_reading():
    (record,) = records(UNCLOSED, decoding=Decoding(samples=2, temperature=1.0))
    assert record.lenient is None


@pytest.mark.parametrize(
    ("text", "said"), [(BEYOND, "write numbers beyond the image"), (FRACTIONS, "between 0 and 1"), (RIGHT, None)]
)
def test_numbers_of_another_frame_give_a_hint(text: str, said: str | None):
    found = result(tabulate(records(*[text] * 4, RIGHT)))["hints"]
    if said is None:
        assert found == []
    else:
        (hint,) = found
        assert hint.startswith("4 of 5 answers")
        assert said in hint
        assert "policy.frame" in hint


def test_a_few_such_answers_give_none():
    assert result(tabulate(records(BEYOND, BEYOND, *[RIGHT] * 12)))["hints"] == []


def test_strict_numbers_are_those_without_a_lenient_reading():
    rows = records(RIGHT, UNCLOSED, NONE_IN_WORDS, BEYOND)
    without = [dataclasses.replace(row, lenient=None) for row in rows]
    assert result(tabulate(rows))["metrics"] == result(tabulate(without))["metrics"]
    assert [row.status is Status.OK for row in rows] == [True, False, False, False]
