"""Every metric against a second, plain implementation; intervals; slices; variants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from eval_samples import TEXTS, write_examples

from segrl import datasets
from segrl.evaluation import EvalDir, Share, bootstrap_ci, read_jsonl, run
from segrl.masks import from_rle, mask_to_box
from segrl.types import Status


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> EvalDir:
    """A scripted evaluation with every outcome."""
    root = tmp_path_factory.mktemp("eval")
    settings = write_examples(root, 60)
    assert run(settings, root / "run", share=Share())
    return EvalDir(root / "run")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def plain_rim(mask: np.ndarray) -> np.ndarray:
    """What as many erosions take off a mask as 2% of the diagonal have pixels, one 3×3 step at a time."""
    inner = mask
    for _ in range(round(0.02 * np.hypot(*mask.shape))):
        padded = np.pad(inner, 1)
        shifts = [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
        inner = np.logical_and.reduce(shifts)
    return mask & ~inner


def plain(path: Path) -> dict[str, float]:
    """The headline metrics from the masks alone, one sample at a time."""
    ious, unions, both, recalls, n_right, t_right, boxes, rims = [], [], [], [], [], [], [], []
    for record in read_jsonl(path):
        truth, mask = from_rle(record.truth), from_rle(record.mask)
        failed, is_there = record.status.is_failure, bool(truth.any())
        inter, union = int((truth & mask).sum()), int((truth | mask).sum())
        if failed:
            iou, inter, union = 0.0, 0, int(truth.sum())
        elif is_there:
            iou = inter / union
        else:
            iou = float(record.status is Status.NO_TARGET)
        ious.append(iou)
        both.append(inter)
        unions.append(union)
        if is_there:
            lines = plain_rim(truth), plain_rim(mask)
            rims.append(0.0 if failed else (lines[0] & lines[1]).sum() / (lines[0] | lines[1]).sum())
            recalls.append(inter / int(truth.sum()))
            t_right.append(record.status is Status.OK)
            boxes.append(not failed and record.status is Status.OK and box_iou(record, truth) > 0.5)
        else:
            rims.append(iou)
            n_right.append(record.status is Status.NO_TARGET)
    return {
        "giou": mean(ious),
        "ciou": sum(both) / sum(unions),
        "mask_recall": mean(recalls),
        "n_acc": mean(n_right),
        "t_acc": mean(t_right),
        "box_acc": mean(boxes),
        "boundary_iou": mean(rims),
        **{f"pr@{k}": mean([iou >= k for iou in ious]) for k in (0.5, 0.6, 0.7, 0.8, 0.9)},
    }


def box_iou(record, truth: np.ndarray) -> float:
    """By drawing both boxes at a hundredth of a pixel."""
    x1, y1, x2, y2 = record.prompts[0].box_xyxy
    u1, v1, u2, v2 = mask_to_box(truth)
    across, down = max(0, min(x2, u2) - max(x1, u1)), max(0, min(y2, v2) - max(y1, v1))
    return across * down / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - across * down)


def test_metrics_equal_a_plain_implementation(finished):
    found = json.loads(finished.metrics.read_text())["metrics"]
    for name, value in plain(finished.records).items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-6), name


def test_intervals_are_those_of_one_metric_alone(finished):
    records = read_jsonl(finished.records)
    found = json.loads(finished.metrics.read_text())["metrics"]
    images = [record.image_id for record in records]
    assert found["giou"]["ci95"] == pytest.approx(bootstrap_ci([r.iou for r in records], clusters=images))
    both, either = [r.intersection for r in records], [r.union for r in records]
    assert found["ciou"]["ci95"] == pytest.approx(bootstrap_ci(both, either, clusters=images))


def test_every_outcome_is_counted(finished):
    found = json.loads(finished.metrics.read_text())
    assert found["n"] == 60
    assert sum(found["statuses"].values()) == 60
    assert set(found["failures"]) == {"bad_syntax", "no_answer"}
    assert found["statuses"]["no_target"] > 0


def test_slices_add_up(finished):
    found = json.loads(finished.metrics.read_text())
    assert set(found["slices"]) >= {"query_length", "object_size", "objects", "place"}
    for parts in found["slices"].values():
        assert sum(part["n"] for part in parts.values()) == found["n"]
        weighted = sum(part["n"] * part["metrics"]["giou"]["value"] for part in parts.values())
        assert weighted / found["n"] == pytest.approx(found["metrics"]["giou"]["value"])


def test_variants_are_named_and_beside_ours(finished):
    records = read_jsonl(finished.records)
    found = json.loads(finished.metrics.read_text())
    read = [record.iou for record in records if not record.status.is_failure]
    assert found["variants"]["failures_left_out"]["metrics"]["giou"]["value"] == pytest.approx(mean(read))
    forgiving = [1.0 if r.status.is_failure and r.target_area == 0 else r.iou for r in records]
    said = found["variants"]["failures_say_nothing_there"]["metrics"]["giou"]["value"]
    assert said == pytest.approx(mean(forgiving))
    assert said > found["metrics"]["giou"]["value"]
    there = [record.iou for record in records if record.target_area]
    targets = found["variants"]["requests_with_a_target"]
    assert targets["n"] == len(there)
    assert targets["metrics"]["giou"]["value"] == pytest.approx(mean(there))
    assert targets["metrics"]["pr@0.7"]["value"] == pytest.approx(mean([iou >= 0.7 for iou in there]))
    first = {record.image_id: record.iou for record in reversed(records)}
    assert found["variants"]["first_request_of_each_image"]["n"] == len(first) < 60


def test_the_summary_says_how_it_was_measured(finished):
    summary = json.loads(finished.summary.read_text())
    run_facts = summary["run"]
    assert run_facts["dataset"]["examples"] == 60
    assert run_facts["segmenter"]["name"] == "box"
    assert run_facts["frame"] == {"kind": "relative_1000", "size_wh_for_1000x700": None}
    assert len(run_facts["prompt"]["sha256"]) == len(run_facts["policy"]["texts_sha256"]) == 64
    assert run_facts["decoding"]["test_time"] == "plain decoding"
    assert {"python", "torch", "segrl"} <= run_facts["versions"].keys()
    assert summary["speed"]["samples"] == 60
    assert summary["speed"]["samples_per_second"] > 0
    assert summary["speed"]["policy_seconds_per_answer"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert summary["metrics"]["tokens"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_a_vote_decides_by_object(tmp_path):
    settings = write_examples(tmp_path, 4, votes=[[TEXTS["right"], TEXTS["right"], TEXTS["wide"]]] * 4, samples=3)
    assert run(settings, tmp_path / "run", share=Share())
    records = read_jsonl(tmp_path / "run" / "records.jsonl")
    assert all(record.samples == (TEXTS["right"], TEXTS["right"], TEXTS["wide"]) for record in records)
    assert [record.iou for record in records if record.target_area] == [1.0] * sum(r.target_area > 0 for r in records)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["decoding"]["test_time"].startswith("vote of 3")


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        (["right", "nothing", "nothing"], Status.NO_TARGET),
        (["right", "nothing", "broken"], Status.NO_TARGET),  # half of those that can be read
        (["right", "right", "nothing"], Status.OK),
        (["broken", "broken", "right"], Status.OK),
        (["broken", "none", "broken"], Status.BAD_SYNTAX),
    ],
)
def test_who_wins_a_vote(tmp_path, texts, status):
    settings = write_examples(tmp_path, 1, votes=[[TEXTS[name] for name in texts]], samples=3)
    run(settings, tmp_path / "run", share=Share())
    (record,) = read_jsonl(tmp_path / "run" / "records.jsonl")
    assert record.status is status


def test_tiny_scenes_tell_what_a_reasoning_names():
    example = next(e for e in datasets.load("tiny", n=20, seed=3, gold="tight") if len(e.targets) == 1)
    gold, named = example.meta["reasoning"], example.meta["named"]
    assert np.array_equal(named(gold), example.truth)
    assert named(gold.replace(": yes", ": no")) is None
    assert named("nothing that can be read") is None
    everything = named(gold.replace(": no", ": yes"))
    assert everything.sum() > example.truth.sum()
    assert not named(" 3,4 small grey thing: yes").any()
