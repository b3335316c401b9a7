"""Transcripts of turns from masks: what corrects an answer is where its mask errs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segrl import datasets
from segrl.answers import Move
from segrl.datasets.gold import gold_answer
from segrl.datasets.turns import correcting_points
from segrl.errors import DataError

TINY = {"name": "tiny", "n": 60, "seed": 3, "kinds": ["colour_shape", "none"]}


def load(**options):
    return datasets.load(**TINY, turns={"seed": 1, "segmenter": None, **options})


def test_the_points_lie_in_the_largest_errors_the_larger_first():
    truth = np.zeros((40, 60), dtype=bool)
    truth[10:30, 10:30] = True
    mask = np.zeros_like(truth)
    mask[10:30, 10:20] = mask[10:20, 35:45] = mask[0:2, 50:52] = True
    (missed, one), (false, zero) = correcting_points(mask, truth)
    assert (one, zero) == (1, 0)
    assert truth[int(missed[1]), int(missed[0])]
    assert not mask[int(missed[1]), int(missed[0])]
    assert mask[int(false[1]), int(false[0])]
    assert 35 <= false[0] < 45
    assert correcting_points(truth, truth) == []


def test_every_kind_of_turn_is_taught_and_only_the_last_is_open():
    found = [example.meta["turns"] for example in load(first=0.2, right=0.3)]
    last = [turns[-1] for turns in found]
    assert {one.move for one in last} == {Move.ANSWER, Move.POINTS, Move.DONE}
    assert all(one.stands is None for one in last)
    assert all(one.stands is not None for turns in found for one in turns[:-1])
    assert {len(turns) for turns in found} == {1, 2, 3}


def test_a_request_for_nothing_and_the_share_of_first_answers_stay_single():
    examples = load(first=0.0)
    assert all(len(e.meta["turns"]) == 1 for e in examples if not e.targets.any())
    assert all(len(e.meta["turns"]) > 1 for e in examples if e.targets.any())
    assert all(len(e.meta["turns"]) == 1 for e in load(first=1.0))


def test_the_same_options_give_the_same_transcripts_and_the_segmenter_makes_the_masks():
    one, other = load(segmenter="box", first=0.0)[0], load(segmenter="box", first=0.0)[0]
    first, again = one.meta["turns"][0], other.meta["turns"][0]
    assert first.prompts == again.prompts
    x1, y1, x2, y2 = first.prompts[0].box_xyxy
    assert abs(int(first.stands.union.sum()) - (x2 - x1) * (y2 - y1)) <= 2 * (x2 - x1 + y2 - y1)


def records(path, query=None):
    """An evaluation's records, of the first 20 examples: the box of a corner for everything."""
    written = []
    examples = datasets.load(**TINY)
    for example in (examples[i] for i in range(20)):
        prompts = [{"box_xyxy": [1, 1, 9, 9], "points_xy": [[4, 4]], "labels": [1]}]
        row = {"id": example.id, "query": query or example.query, "status": "ok", "reasoning": "x", "prompts": prompts}
        written.append(json.dumps({**row, "text": f"about {example.id}"}) + "\n")
    (path / "records.jsonl").write_text("".join(written), encoding="utf-8")
    return str(path)


def test_a_policy_is_taught_to_correct_its_own_answers(tmp_path):
    examples = load(first=0.0, right=0.0, own=1.0, answers=records(tmp_path), segmenter="box")
    begun = [(e, e.meta["turns"]) for e in examples[:20] if e.targets.any()]
    assert {turns[0].text for _, turns in begun} == {f"about {e.id}" for e, _ in begun}
    assert all(turns[0].stands.union.sum() == 64 for _, turns in begun)
    assert all(turns[1].anew and turns[1].reasoning == e.meta["reasoning"] for e, turns in begun)
    assert all(e.meta["turns"][0].text is None for e in examples[20:])  # not answered: damaged


def test_corrections_from_the_masks_are_not_the_example_s_own_prompts():
    def corrections(**options):
        loose = datasets.load(**TINY, gold="loose", turns={"seed": 1, "segmenter": "box", "first": 0.0, **options})
        return [(e, e.meta["turns"][-1].whole) for e in loose if e.meta["turns"][-1].whole]

    assert all(whole == tuple(e.meta["prompts"]) for e, whole in corrections())
    assert all(whole == gold_answer(e) != tuple(e.meta["prompts"]) for e, whole in corrections(from_masks=True))


def test_answers_to_other_examples_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the first 16 examples"):
        load(answers=records(tmp_path, query="the sun"))
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        load(answers=str(tmp_path / "nowhere"))
    (tmp_path / "records.jsonl").write_text('{"id": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match="does not hold the records"):
        load(answers=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"longest": 1}, "longest from 2"), ({"right": 2}, "turns.right is a share"), ({"wording": "x"}, "turns.wording")],
)
def test_wrong_options(options, said):
    with pytest.raises(DataError, match=said):
        load(**options)


def test_an_unknown_option_is_named():
    with pytest.raises(DataError, match="turns is"):
        load(deep=3)
