from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scripted import ScriptedPolicy

from segrl import answers, segmenters
from segrl.errors import DataError
from segrl.evaluation import EvalRecord, evaluate, pointing, read_jsonl, write_jsonl
from segrl.evaluation.result import result
from segrl.evaluation.table import tabulate
from segrl.loading import make_text_to_masks
from segrl.masks import box_to_mask, from_rle
from segrl.policies import Completion
from segrl.types import RELATIVE_1000, Example, Status

BOX = (40.0, 10.0, 80.0, 30.0)
FORMAT = answers.get("seg-r1")

TEXTS = {
    "right": (
        "<think>it is 1</think> <bbox>[400,200,800,600]</bbox>, "
        "<points>[[600,400],[10,10]]</points>, <labels>[1,0]</labels>"
    ),
    "wide": "<bbox>[300,100,900,700]</bbox>, <points>[[310,110],[320,120]]</points>, <labels>[1,0]</labels>",
    "elsewhere": "<bbox>[0,0,200,100]</bbox>",
    "nothing": "<bbox>[]</bbox> <points>[]</points> <labels>[]</labels>",
    "broken": "<bbox>[400,200,</bbox>",
}


def example(query: str, *, there: bool = True, kind: str = "a") -> Example:
    """A filled box on an image of 100×50, asked for in a word that `policy` has a text for."""
    truth = box_to_mask(BOX, (50, 100))[None] if there else np.zeros((0, 50, 100), dtype=bool)
    name = f"{query}-{there}-{kind}"
    return Example(name, name, Image.new("RGB", (100, 50)), query, truth, tags={"kind": kind})


EXAMPLES = [
    example("right"),
    example("wide", kind="b"),
    example("elsewhere"),
    example("broken", kind="b"),
    example("nothing"),
    example("nothing", there=False),
    example("right", there=False),
    example("broken", there=False),
]


def policy() -> ScriptedPolicy:
    return ScriptedPolicy({FORMAT.prompt(query): text for query, text in TEXTS.items()}, frame=RELATIVE_1000)


def run(examples=EXAMPLES, **options) -> list[EvalRecord]:
    scripted = policy()
    return evaluate(scripted, make_text_to_masks(scripted, segmenters.load("box")), examples, **options)


def test_records_of_every_outcome():
    right, wide, elsewhere, broken, missed, abstained, alarm, broken_on_nothing = run()
    assert (right.iou, right.status, right.reasoning) == (1.0, Status.OK, "it is 1")
    assert 0 < wide.iou < 1
    assert (elsewhere.iou, elsewhere.intersection) == (0.0, 0)
    assert (broken.status, broken.iou, broken.union) == (Status.BAD_SYNTAX, 0.0, 40 * 20)
    assert (missed.status, missed.iou, missed.union) == (Status.NO_TARGET, 0.0, 40 * 20)
    assert (abstained.status, abstained.iou, abstained.union) == (Status.NO_TARGET, 1.0, 0)
    assert (alarm.status, alarm.iou) == (Status.OK, 0.0)
    assert (broken_on_nothing.iou, broken_on_nothing.status) == (0.0, Status.BAD_SYNTAX)


def test_prompts_are_in_original_pixels():
    right = run()[0]
    (prompt,) = right.prompts
    assert prompt.box_xyxy == pytest.approx(BOX)
    assert prompt.points_xy[0] == pytest.approx((60, 20))
    assert np.array_equal(from_rle(right.mask), from_rle(right.truth))


def test_batches_change_nothing():
    assert run(batch_size=3) == run()


def test_truncation_reaches_the_parser():
    class Cut(ScriptedPolicy):
        def generate(self, images, prompts, **options):
            return [[Completion("<think>it is", truncated=True, n_tokens=5)] for _ in prompts]

    scripted = Cut({}, frame=RELATIVE_1000)
    (record,) = evaluate(scripted, make_text_to_masks(scripted, segmenters.load("box")), EXAMPLES[:1])
    assert (record.status, record.truncated, record.tokens) == (Status.TRUNCATED, True, 5)


def test_file_round_trip(tmp_path):
    records = run()
    write_jsonl(records, tmp_path / "new" / "records.jsonl")
    assert read_jsonl(tmp_path / "new" / "records.jsonl") == records
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("text", ["a\u2028b\u0085c\u2029d\x0b", "half a pair: \udce9"])
def test_any_text_is_one_line(tmp_path, text):
    record = replace(run(EXAMPLES[:1])[0], query=text, text=text)
    write_jsonl([record, record], tmp_path / "records.jsonl")
    assert read_jsonl(tmp_path / "records.jsonl") == [record, record]


@pytest.mark.parametrize("line", ["{", '{"id": "a"}', "[]", "null"])
def test_broken_file_names_file_and_line(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(run(EXAMPLES[:1])[0].to_json()) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"records\.jsonl, line 2"):
        read_jsonl(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot read the evaluation"):
        read_jsonl(tmp_path / "none.jsonl")


def test_metrics_count_failures_and_kinds():
    found = result(tabulate(run()))
    assert found["n"] == 8
    assert found["statuses"] == {"bad_syntax": 2, "no_target": 2, "ok": 4}
    assert found["metrics"]["parse_rate"]["value"] == pytest.approx(6 / 8)
    assert set(found["slices"]["kind"]) == {"a", "b"}


def test_pointing_tells_boxes_and_points_apart():
    right, wide, elsewhere, *_ = records = run()
    assert pointing([right])["box_iou"] == pytest.approx(1.0)
    assert pointing([right])["negatives_useful"] == 0.0
    loose = pointing([wide])
    assert loose["box_area_ratio"] == pytest.approx(60 * 30 / (40 * 20))
    assert (loose["aimed"], loose["positives_on_target"], loose["negatives_useful"]) == (1.0, 0.0, 1.0)
    assert pointing([elsewhere])["aimed"] == 0.0
    assert pointing(records)["answers"] == 3
    assert pointing(records)["no_target_right"] == pytest.approx(1 / 3)


def test_pointing_of_nothing_is_none():
    assert pointing([])["aimed"] is None
    json.dumps(pointing([]), allow_nan=False)
