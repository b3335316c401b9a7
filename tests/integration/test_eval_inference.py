"""The second look: what it is shown, how its answer is laid back, and when it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eval_samples import write_examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted import ScriptedPolicy

from segrl import answers, segmenters
from segrl.errors import SegrlError
from segrl.evaluation import Decoding, Share, compare_runs, read_jsonl, run
from segrl.evaluation.records import EvalRecord
from segrl.evaluation.run import evaluate_window
from segrl.inference.answering import CONTEXT, SMALLEST, _span
from segrl.loading import make_text_to_masks
from segrl.masks import box_to_mask, from_rle
from segrl.policies import Completion
from segrl.types import RELATIVE_1000, Example, Status

WH = (100, 50)
TRUE = (40.0, 10.0, 60.0, 20.0)
LOOSE = (38.0, 8.0, 66.0, 24.0)
REGION = (24, 0, 80, 32)
"""Twice the sides of LOOSE, moved down into the image."""
TEXTS = {
    "nothing": "<bbox>[]</bbox> <points>[]</points> <labels>[]</labels>",
    "broken": "<bbox>[1,2,</bbox>",
}
LOOK = Decoding(second_look=True)


def written(box: tuple[float, ...], seen_in: tuple[float, ...] = (0, 0, *WH)) -> str:
    """A box of the image as a policy writes it that sees `seen_in` of it."""
    sides = (seen_in[2] - seen_in[0], seen_in[3] - seen_in[1])
    numbers = [1000 * (value - seen_in[i % 2]) / sides[i % 2] for i, value in enumerate(box)]
    return f"<bbox>{numbers}</bbox>"


class Looker(ScriptedPolicy):
    """Answers `first` about the whole image and `second` about anything else; keeps what it was shown."""

    def __init__(self, first: str, second: str = "", truncated: bool = False) -> None:
        super().__init__({}, frame=RELATIVE_1000)
        self.texts, self.truncated, self.shown = (first, second), truncated, list[Image.Image]()

    def generate(self, images, prompts, **options):
        self.shown += images
        return [[self._completion(image.size == WH)] for image in images]

    def _completion(self, is_whole: bool) -> Completion:
        text = self.texts[0] if is_whole else self.texts[1]
        return Completion(text, truncated=self.truncated and not is_whole, n_tokens=5 if is_whole else 7, seconds=0.5)


def example() -> Example:
    noise = np.random.default_rng(0).integers(0, 255, (WH[1], WH[0], 3), dtype=np.uint8)
    return Example("e", "i", Image.fromarray(noise), "it", box_to_mask(TRUE, (WH[1], WH[0]))[None])


def answer(policy: Looker, decoding: Decoding = LOOK) -> EvalRecord:
    text_to_masks = make_text_to_masks(policy, segmenters.load("box"))
    (record,) = evaluate_window(policy, text_to_masks, [example()], decoding)
    return record


def test_the_region_is_shown_and_the_better_answer_laid_back():
    texts = written(LOOSE), written(TRUE, REGION)
    policy = Looker(*texts)
    record = answer(policy)
    assert [image.size for image in policy.shown] == [WH, (56, 32)]
    assert np.array_equal(np.asarray(policy.shown[1]), np.asarray(example().image.crop(REGION)))
    assert record.iou == 1.0
    assert record.prompts[0].box_xyxy == pytest.approx(TRUE)
    assert np.array_equal(from_rle(record.mask), example().truth)
    assert (record.text, record.samples) == (texts[1], texts)
    assert (record.tokens, record.seconds) == (12, 1.0)
    assert answer(Looker(*texts), Decoding()).iou < 0.5


@pytest.mark.parametrize("second", ["nothing", "broken", "elsewhere", "cut off"])
def test_a_second_answer_that_finds_something_else_does_not_count(second: str):
    text = TEXTS.get(second, written((70, 26, 78, 31), REGION) if second == "elsewhere" else "<think>it")
    policy = Looker(written(LOOSE), text, truncated=second == "cut off")
    record, plain = answer(policy), answer(Looker(written(LOOSE)), Decoding())
    assert len(policy.shown) == 2
    assert (record.text, record.status, record.truncated) == (plain.text, Status.OK, False)
    assert (record.mask, record.prompts, record.iou) == (plain.mask, plain.prompts, plain.iou)
    assert record.samples == (plain.text, text)
    assert record.tokens == 12


@pytest.mark.parametrize("first", ["nothing", "broken", written((2, 2, 98, 48))])
def test_nothing_is_asked_again_where_nothing_new_would_be_seen(first: str):
    policy = Looker(TEXTS.get(first, first), written(TRUE, REGION))
    record = answer(policy)
    assert len(policy.shown) == 1
    assert (record.samples, record.tokens) == ((), 5)


@given(side=st.integers(1, 400), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_region_holds_what_was_found_and_lies_in_the_image(side: int, ends: tuple[float, float]):
    low, high = (round(end * side) for end in sorted(ends))
    if low == high:
        low, high = (low, low + 1) if low < side else (low - 1, low)
    start, end = _span(low, high, side)
    assert 0 <= start <= low < high <= end <= side
    assert abs((end - start) - min(max(CONTEXT * (high - low), SMALLEST * side), side)) <= 1


def test_it_is_recorded_and_never_mixed_with_plain_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = replace(write_examples(tmp_path, 4), policy="looker", texts=None)
    look = replace(plain, decoding=LOOK)
    policy = Looker(written(LOOSE), written(TRUE, REGION))
    monkeypatch.setattr("segrl.evaluation.settings.policies.load", lambda name, **options: policy)
    assert run(plain, tmp_path / "plain", share=Share())
    assert run(look, tmp_path / "look", share=Share())
    decoding = json.loads((tmp_path / "look" / "run.json").read_text())["decoding"]
    assert (decoding["second_look"], decoding["test_time"]) == (True, "second look")
    assert all(len(record.samples) == 2 for record in read_jsonl(tmp_path / "look" / "records.jsonl"))
    assert "decoding.second_look" in compare_runs(tmp_path / "plain", tmp_path / "look")["settings"]
    with pytest.raises(SegrlError, match=r"decoding\.second_look: False there, True now"):
        run(look, tmp_path / "plain", share=Share())


def test_the_format_reads_what_the_tests_write():
    (prompt,) = answers.parse(written(TRUE), "seg-r1", frame=RELATIVE_1000).prompts
    assert prompt.box_xyxy == (400, 200, 600, 400)
