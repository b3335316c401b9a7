"""docs/photographs.md and the card of tiny-photos, of made-up records: every arm, difference and aim that they name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from dataset_files import box_mask, save_image, save_mask

sys.path.append(str(Path(__file__).parents[2] / "proof"))

import photographs
import photographs_page
from photographs import Photographs, Plan

from segrl import answers, tiny
from segrl.coordinates import box_iou
from segrl.evaluation import EvalRecord, write_evaluation
from segrl.evaluation.records import write_jsonl
from segrl.masks import to_rle
from segrl.types import ORIGINAL, RELATIVE_1000, Box, MaskPrompt, Status

TRUTH: Box = (2, 1, 8, 7)
ANSWERS: dict[str, Box] = {
    "whole": (0, 0, 12, 8),
    "constant": (0, 0, 8, 7),
    "cold_start": (1, 0, 10, 8),
    "rl-0": (2, 1, 8, 6),
    "rl-1": (0, 0, 12, 7),
    "more_sft": (1, 1, 9, 8),
    "shuffled": (0, 0, 10, 8),
    "vote": (2, 1, 8, 7),
    "grabcut": (3, 1, 8, 7),
    "gold": TRUTH,
}
"""What each arm answers to every picture; seed 0 is above its controls, seed 1 is below them."""
COUNTS = {"held out": 4, "DUTS-TE": 25, "ECSSD": 6}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """A run's directory as it stands at its end, with two seeds."""
    tmp_path = tmp_path_factory.mktemp("photographs")
    found = Photographs(tmp_path / "run", tmp_path, tmp_path / "ecssd", Plan(seeds=(0, 1)))
    folders = {
        "DUTS-TE": ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
        "ECSSD": ("ecssd/images", "ecssd/ground_truth_mask"),
    }
    for name, count in COUNTS.items():
        for i in range(count if name in folders else 0):
            save_image(tmp_path / folders[name][0] / f"{i:04}.jpg")
            save_mask(tmp_path / folders[name][1] / f"{i:04}.png", box_mask((2, 1, 8, 7)))
        for arm, box in ANSWERS.items():
            if name == "held out" and arm not in [*found.trained, "vote"]:
                continue
            records = [record(f"{i:04}", box if i or arm != "rl-0" else (0, 0, 1, 1)) for i in range(count)]
            write_evaluation({"dataset": {"examples": count}}, records, found.evaluation(name, arm).path)
    start = {
        "device": "CPU (x86_64), 2 threads",
        "compute_type": "bfloat16",
        "versions": dict.fromkeys(("segrl", "torch", "transformers", "trl"), "9.9"),
    }
    for arm in found.trained:
        (found.out / arm).mkdir(parents=True)
        (found.out / arm / "run.json").write_text(json.dumps({"starts": [start]}))
        (found.out / arm / "finished.json").write_text('{"last_step": 100, "seconds": 300}')
    eyes = {"samples": 150_000, "iou": 0.7, "train_iou": 0.8, "box_iou": 0.6, "train_box_iou": 0.9}
    (found.out / "eyes").mkdir()
    (found.out / "eyes" / "log.jsonl").write_text(json.dumps(eyes) + "\n")
    (found.out / "constant.json").write_text('{"text": "<bbox>[1,2,3,4]</bbox>", "tried": {"a": 0.1, "b": 0.2}}')
    return found


def record(name: str, box: Box) -> EvalRecord:
    """A record of a picture of 12 × 8; its S-measure is its IoU."""
    x1, y1, x2, y2 = (int(side) for side in box)
    mask, truth, iou = box_mask((x1, y1, x2, y2)), box_mask((2, 1, 8, 7)), box_iou(box, TRUTH)
    both = int((mask & truth).sum())
    return EvalRecord(
        id=name, image_id=name, tags={}, query="all", text="", status=Status.OK, reasoning=None, detail="",
        prompts=(MaskPrompt(box, (), (), ORIGINAL),), mask=to_rle(mask), truth=to_rle(truth), iou=iou, s_measure=iou,
        intersection=both, union=int((mask | truth).sum()), target_area=36, predicted_area=int(mask.sum()),
        tokens=9, seconds=0.1, truncated=False,
        measures={"pixels": 96.0, "targets": 1.0, "weighted_f": iou, "box_iou": iou},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(work: Photographs) -> str:
    path = work.out / "page.md"
    path.write_text(f"Before.\n{photographs_page.BEGIN}\nof an earlier run\n{photographs_page.END}\nAfter.\n")
    photographs_page.write_page(work, path)
    text = path.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "of an earlier run" not in text
    return text


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of all tables under a heading."""
    part = text.split(f"\n## {heading}")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(("name", "published"), [("DUTS-TE", 0.925), ("ECSSD", 0.939)])
def test_each_set_has_every_arm_with_every_measure_and_interval(page: str, name: str, published: float) -> None:
    found = rows(page, f"{name}: {COUNTS[name]} pictures")
    assert found[0] == ["answers", "S", "mean E", "weighted F", "MAE", "IoU", "box IoU"]
    titles = [row[0] for row in found]
    for title in photographs_page.TITLES.values():
        assert title in titles
    assert {"cold start + RL, seed 0", "cold start + RL, seed 1"} < set(titles)
    ours = found[2 : 2 + len(ANSWERS)]
    assert all(cell.count("[") == 1 for row in ours for cell in row[1:-1])
    constant = next(row for row in ours if row[0] == "the best constant answer")
    expected = f"{box_iou(ANSWERS['constant'], TRUTH):.3f}"
    assert constant[-2].startswith(f"{expected} [")
    assert constant[-1] == expected
    papers = [row for row in found if "as published" in row[0]]
    assert len(papers) == 2
    assert f"{published:.3f}" in papers[0]


@pytest.mark.parametrize("name", ["DUTS-TE", "ECSSD"])
def test_each_set_has_the_paired_differences_of_each_seed(page: str, name: str) -> None:
    found = rows(page, f"{name}: {COUNTS[name]} pictures")
    differences = found[found.index(["RL minus", "seed", "S", "IoU"]) + 2 :]
    others = ("cold_start", "more_sft", "constant", "whole", "shuffled")
    expected = [[photographs_page.TITLES[one], arm] for one in others for arm in ("0", "1", "vote")]
    assert [row[:2] for row in differences] == expected
    assert all(row[3][0] == "+" for row in differences if row[1] == "0")


def test_what_was_aimed_at_is_told_of_each_seed(page: str) -> None:
    found = rows(page, "What was aimed at")
    assert found[0] == ["RL", "seed 0", "seed 1"]
    assert len(found) == 2 + 2 * 3 + 1
    told = {row[0]: row[1:] for row in found[2:]}
    assert told["DUTS-TE: above cold start"] == ["yes", "no"]
    assert told["ECSSD: above the best constant answer"][1] == "no"
    assert told["ECSSD: S at least 0.82"] == ["no (0.694)", "no (0.429)"]


def test_the_first_pictures_by_name_and_the_worst_are_drawn_outside_the_page(work: Photographs, page: str) -> None:
    assert "first 20 pictures by name (RL, seed 0): 0000 0.00, 0001 0.83" in page
    assert "The 5 worst: 0000 0.00, 0001 0.83" in page
    drawn = sorted(path.name for path in (work.out / "pictures").iterdir())
    assert drawn == ["DUTS-TE-first.jpg", "DUTS-TE-worst.jpg", "ECSSD-first.jpg", "ECSSD-worst.jpg"]
    assert "![" not in page


def test_what_was_trained_and_chosen_is_told(page: str) -> None:
    assert "bfloat16 on CPU (x86_64), 2 threads; segrl 9.9, torch 9.9" in page
    assert "150,000 samples" in page
    assert "rl-1 100 steps, 5 min (kept: model)" in page
    chosen = page.split("## What the choices were made on")[1]
    assert "seed 0 is what ships" in chosen
    assert "the best of 2: `<bbox>[1,2,3,4]</bbox>`" in chosen


def test_answers_that_look_at_nothing_can_be_read() -> None:
    """A failure would score 0, and any policy be above it."""
    texts = [photographs.WHOLE, *photographs.constant_answers((0.2, 0.15, 0.8, 0.85))]
    assert len(set(texts)) == 21
    for text in texts:
        answer = answers.parse(text, "seg-r1", frame=RELATIVE_1000)
        assert answer.status is Status.OK, text
    assert answers.parse(photographs.WHOLE, "seg-r1").prompts[0].box_xyxy == (0, 0, 1000, 1000)


def test_arms_of_different_pictures_are_not_compared(tmp_path: Path) -> None:
    work = Photographs(tmp_path, tmp_path, None, Plan())
    for arm, first in (("constant", 0), ("rl-0", 1)):
        records = [record(f"{i:04}", TRUTH) for i in range(first, first + 3)]
        write_jsonl(records, work.evaluation("ECSSD", arm).records)
    with pytest.raises(ValueError, match="constant and rl-0 were not measured on the same pictures of ECSSD"):
        photographs_page._pair(work, "ECSSD", "constant", "rl-0", "iou")


def test_the_best_measured_seed_ships_with_a_card(
    work: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "PHOTOS", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(bytes(7_600_000))
    (work.out / "rl-2").mkdir()  # trained, not measured
    found = photographs.measured(work.out)
    assert found.plan.seeds == (0, 1)
    assert found.best_seed == "rl-0"
    text = photographs_page.card(found, "A remark.")
    assert "7.6 MB" in text
    assert "| DUTS-TE | 0.8" in text
    assert "| ECSSD | 0.694 [" in text
    assert "A remark." in text
    with pytest.raises(SystemExit, match="no seed that was measured"):
        photographs.measured(tmp_path)
