from __future__ import annotations

import json
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from segrl import answers, segmenters
from segrl.masks import from_rle, to_rle
from segrl.rewards import RewardEngine, build_terms
from segrl.rewards.trl_adapter import ROLLOUT_COLUMN, Shuffle, TrlRewards, completions_sha
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL

TEXTS = [
    "<think>x</think> <bbox>[4,2,14,6]</bbox>, <points>[[5,3]]</points>, <labels>[1]</labels>",
    "<bbox>[4,2,9,6]</bbox>",
    "nothing",
    "<think>x</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>",
]


class CountingRoad(TextToMasks):
    reads = 0

    def read(self, *args, **kwargs):
        type(self).reads += 1
        return super().read(*args, **kwargs)


@pytest.fixture
def make():
    """Builds the adapter; a completion id is an index into TEXTS, and a second id says it was cut off."""

    def build(**options) -> TrlRewards:
        CountingRoad.reads = 0
        text_to_masks = CountingRoad(answers.get("seg-r1"), lambda image_wh: ORIGINAL, segmenters.load("box"))
        engine = RewardEngine(text_to_masks, build_terms({"iou": 0.7, "format": 0.3}))
        return TrlRewards(engine, lambda ids: (TEXTS[ids[0]], len(ids) > 1, len(ids)), **options)

    return build


def columns(n: int, step: int = 0) -> dict:
    truth = np.zeros((10, 20), dtype=bool)
    truth[2:6, 4:14] = True
    logged: dict = defaultdict(list)
    return {
        "prompts": [None] * n,
        "completions": [None] * n,
        "trainer_state": SimpleNamespace(global_step=step),
        "log_extra": lambda name, values: logged[name].extend(values),
        "log_metric": lambda name, value: logged[name].append(value),
        "original": [Image.new("RGB", (20, 10))] * n,
        "image_id": ["i"] * n,
        "image_hw": [(10, 20)] * n,
        "example_id": ["e"] * n,
        "query": ["the box"] * n,
        "tags": [{"kind": "size"}] * n,
        "ground_truth": [[to_rle(truth)]] * n,
        "ignore": [None] * n,
        "logged": logged,
    }


def test_functions_are_named_after_terms_and_share_one_scoring(make):
    rewards = make()
    iou, format_all = rewards.functions()
    assert (iou.__name__, format_all.__name__, rewards.weights) == ("iou", "format", [0.7, 0.3])
    ids, row = [[0], [1], [2], [3]], columns(4)
    assert iou(completion_ids=ids, **row) == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert format_all(completion_ids=ids, **row) == [1.0, 0.0, 0.0, 1.0]
    assert CountingRoad.reads == 1
    assert row["logged"]["giou"] == [pytest.approx(0.375)]
    assert row["logged"]["status/ok"] == [0.5]
    assert row["logged"]["status/no_target"] == [0.25]
    assert row["logged"][ROLLOUT_COLUMN] == [""] * 4


def test_an_equal_but_new_batch_is_scored_again(make):
    iou, _ = make().functions()
    for _ in range(3):
        iou(completion_ids=[[0], [1]], **columns(2))
    assert CountingRoad.reads == 3


def test_one_call_may_follow_another_batch_at_the_same_address(make):
    """The batch is kept by reference: a freed list's id may come back, its identity may not."""
    iou, format_all = make().functions()
    for first in range(len(TEXTS)):
        ids = [[first]]
        iou(completion_ids=ids, **columns(1))
        assert format_all(completion_ids=ids, **columns(1)) == [float(first in (0, 3))]
        del ids


def test_rollout_rows_hold_what_the_viewer_needs(make):
    rewards = make(logs_rollouts=lambda step: step == 8)
    row = columns(2, step=7)
    rewards.functions()[0](completion_ids=[[0], [1, 1]], **row)
    good, cut = (json.loads(text) for text in row["logged"][ROLLOUT_COLUMN])
    assert (good["step"], good["query"], good["tags"]) == (8, "the box", {"kind": "size"})
    completion = good["completion"]
    assert completion["prompts"] == [{"box_xyxy": [4, 2, 14, 6], "points_xy": [[5, 3]], "labels": [1]}]
    assert from_rle(completion["mask"]).sum() == 40
    assert (completion["terms"], completion["reward"]) == ({"iou": 1.0, "format": 1.0}, 1.0)
    assert cut["completion"]["truncated"]
    assert rewards.last.step == 8


def test_no_target_truth_has_no_masks(make):
    iou, _ = make().functions()
    row = columns(2)
    row["ground_truth"] = [[], []]
    assert iou(completion_ids=[[3], [0]], **row) == [1.0, 0.0]


def test_shuffle_moves_all_terms_of_a_group_together(make):
    ids = [[0], [1], [2], [3]] * 2
    row = columns(8, step=3)
    row["example_id"] = ["a"] * 4 + ["b"] * 4
    plain = [f(completion_ids=ids, **row) for f in make().functions()]
    shuffled = [f(completion_ids=ids, **row) for f in make(shuffle=Shuffle(seed=5, num_generations=4)).functions()]
    order = Shuffle(5, 4).permutation(row["example_id"], step=4)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert sorted(order[4:]) == [4, 5, 6, 7]
    assert shuffled == [[values[i] for i in order] for values in plain]
    assert Shuffle(5, 4).permutation(row["example_id"], 4) == order
    assert any(Shuffle(5, 4).permutation(row["example_id"], step) != order for step in range(5, 9))


@pytest.mark.parametrize("keys", [["a", "b", "b", "b"], ["a"] * 5])
def test_shuffle_refuses_broken_groups(keys):
    with pytest.raises(ValueError, match="whole groups"):
        Shuffle(0, 4).permutation(keys, 1)


def test_sha_knows_where_a_completion_ends():
    assert completions_sha([[1, 2], [3]]) == completions_sha([[1, 2], [3]])
    assert len({completions_sha(ids) for ids in ([[1, 2], [3]], [[1], [2, 3]], [[3], [1, 2]], [[1, 2, 3]])}) == 4
