"""The reward check: gold answers beside wrong ones, before step 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from segrl import datasets, segmenters
from segrl.errors import DataError, RecipeError
from segrl.masks import box_to_mask
from segrl.policies import PolicySettings
from segrl.rewards import RewardEngine, build_terms
from segrl.text_to_masks import TextToMasks
from segrl.training import parse_recipe
from segrl.training.checkpoints import RunDir
from segrl.training.parts import Parts, Reader
from segrl.training.reward_check import _drawn, check_rewards, ensure_reward
from segrl.types import ORIGINAL, RELATIVE_1000, Example, Frame

FRAMES = {
    "original": lambda wh: ORIGINAL,
    "relative": lambda wh: RELATIVE_1000,
    "resized": lambda wh: Frame.resized(70, 90),
}


def example(index: int, *, there: bool = True) -> Example:
    """A box somewhere on an image of 80×60 or 120×90."""
    width, height = (80, 60) if index % 2 else (120, 90)
    x, y = 5 + 9 * (index % 5), 4 + 6 * (index % 7)
    mask = box_to_mask((x, y, x + 18, y + 15), (height, width))
    targets = mask[None] if there else np.zeros((0, height, width), dtype=bool)
    return Example(str(index), f"image/{index}", Image.new("RGB", (width, height)), "the box", targets)


def run_check(rewards, examples, frame="original", answer_format="seg-r1", **options):
    reader = Reader(PolicySettings(answer_format), answer_format, FRAMES[frame], lambda chat: "")
    text_to_masks = TextToMasks(reader.format, reader.frame_for, segmenters.load("box"))
    return check_rewards(RewardEngine(text_to_masks, build_terms(rewards)), reader, examples, **options)


EXAMPLES = [example(i) for i in range(6)]
MIXED = [example(i, there=i % 3 != 0) for i in range(6)]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("answer_format", ["seg-r1", "sam-r1", "json-list"])
def test_gold_is_clearly_best_under_a_sound_reward(frame, answer_format):
    check = run_check({"iou": 0.7, "format_answer": 0.3}, MIXED, frame, answer_format)
    assert check.passed, check.faults
    gold, *others = check.rows
    assert (gold.answer, gold.n, gold.read, gold.lead) == ("gold", 6, 1.0, None)
    assert [row.answer for row in others] == ["empty", "full image", "random boxes", "shuffled"]
    assert all(row.lead > 0.2 for row in others)


def test_nothing_there_is_right_where_nothing_is():
    check = run_check({"iou": 1.0}, MIXED)
    counts = {row.answer: row.n for row in check.rows}
    assert (counts["gold"], counts["empty"]) == (6, 4)
    only_absent = run_check({"iou": 1.0}, [example(i, there=False) for i in range(3)])
    assert [row.answer for row in only_absent.rows] == ["gold", "full image", "random boxes"]
    assert only_absent.passed


def test_gold_in_words_alone_is_checked_too():
    scenes = datasets.load("tiny", n=8, seed=3, kinds=["colour_shape"], gold="tight", says="words")
    reader = Reader(PolicySettings("concept"), "concept", FRAMES["original"], lambda chat: "")
    text_to_masks = TextToMasks(reader.format, reader.frame_for, segmenters.load("shapes"))
    engine = RewardEngine(text_to_masks, build_terms({"iou": 1.0}))
    check = check_rewards(engine, reader, [scenes[i] for i in range(8)])
    assert check.passed, check.faults
    assert check.rows[0].reward > 0.5


def pays_small_masks(rollout) -> float:
    """A fault as seen in a peer's code: an empty mask earns full marks."""
    return 1.0 - float(rollout.segmentation.union.float().mean())


def test_a_term_that_pays_for_empty_masks_is_named():
    own = {"weight": 1.0, "python": "test_reward_check.pays_small_masks"}
    check = run_check({"iou": 0.02, "format": 0.2, "small": own}, EXAMPLES)
    assert not check.passed
    fault = next(fault for fault in check.faults if "empty" in fault)
    assert "small" in fault
    assert "iou" not in fault


def test_a_reward_for_the_form_alone_is_refused():
    check = run_check({"format": 1.0}, EXAMPLES)
    assert len(check.faults) == 4
    assert all("paid by format" in fault for fault in check.faults)


def test_a_margin_asks_for_more():
    assert run_check({"iou": 0.1, "format": 1.0}, EXAMPLES, margin=0.5).passed  # what all are paid does not count
    assert not run_check({"iou": 0.1, "format": 1.0}, EXAMPLES, margin=0.95).passed


def test_an_answer_that_is_right_all_the_same_is_not_counted():
    alike = [example(0), example(0), example(0)]
    assert [row.answer for row in run_check({"iou": 1.0}, alike).rows] == [
        "gold",
        "empty",
        "full image",
        "random boxes",
    ]


def test_the_table_has_a_column_per_term():
    head, gold, *rest = run_check({"iou": 0.7, "format": 0.3}, EXAMPLES).lines()
    assert head.split()[-2:] == ["iou", "format"]
    assert gold.split()[0] == "gold"
    assert len(rest) == 4


def test_one_example_has_nobody_to_swap_with():
    assert "shuffled" not in [row.answer for row in run_check({"iou": 1.0}, EXAMPLES[:1]).rows]


def test_examples_without_a_right_answer_are_passed_over():
    broken = Example("b", "b", Image.new("RGB", (8, 6)), "q", np.zeros((1, 6, 8), dtype=bool))
    assert [one.id for one in _drawn([broken, *EXAMPLES[:1], broken], 2, seed=0)] == ["0"]
    with pytest.raises(DataError, match="none of 2 training examples"):
        _drawn([broken, broken], 1, seed=0)


@pytest.fixture
def grpo():
    return {
        "method": "grpo",
        "policy": "tiny",
        "segmenter": "box",
        "dataset": {"name": "tiny", "n": 40, "seed": 3, "kinds": ["colour_shape", "none"]},
        "rewards": {"iou": 0.7, "format": 0.3},
    }


def test_a_run_begins_only_with_a_reward_that_tells_gold_from_the_rest(grpo, tmp_path):
    run, said = RunDir(tmp_path), []
    ensure_reward(Parts(parse_recipe(grpo)), run, said.append)
    assert said[0].startswith("reward check: gold answers earn")
    kept = json.loads(run.reward_check.read_text())
    assert kept["passed"]
    assert kept["rows"][0]["n"] == 8
    ensure_reward(Parts(parse_recipe(grpo)), run, said.append)
    assert len(said) == 1  # it passed before
    with pytest.raises(RecipeError, match="reward check: "):  # another recipe has not
        ensure_reward(Parts(parse_recipe({**grpo, "rewards": {"format": 1.0}})), run, said.append)


def test_a_run_with_a_bad_reward_stops_and_shows_the_table(grpo, tmp_path):
    run, said = RunDir(tmp_path), []
    bad = {**grpo, "rewards": {"format": 1.0}}
    with pytest.raises(RecipeError, match="reward_check: false") as caught:
        ensure_reward(Parts(parse_recipe(bad)), run, said.append)
    assert "\n" not in str(caught.value)
    assert said[0].startswith("answers")
    assert not json.loads(run.reward_check.read_text())["passed"]
    ensure_reward(Parts(parse_recipe({**bad, "reward_check": False})), run, said.append)
    run.steps.write_text('{"step": 1}\n')
    ensure_reward(Parts(parse_recipe(bad)), run, said.append)  # what has begun is not stopped
