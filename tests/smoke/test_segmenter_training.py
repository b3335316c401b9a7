"""The trainings on DUTS run, go on where they were stopped, and leave weights that load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

PROOF = Path(__file__).parents[2] / "proof"
sys.path.insert(0, str(PROOF))


@pytest.fixture(scope="module")
def duts(tmp_path_factory) -> Path:
    """Forty-two pictures with a disc each, in DUTS's layout, and three for testing."""
    root = tmp_path_factory.mktemp("duts")
    rng = np.random.default_rng(0)
    for part, count in (("DUTS-TR", 42), ("DUTS-TE", 3)):
        draw(root / part / f"{part}-Image", root / part / f"{part}-Mask", count, rng)
    return root


def draw(images: Path, masks: Path, count: int, rng: np.random.Generator) -> None:
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    ys, xs = np.mgrid[:60, :80]
    for i in range(count):
        mask = (xs - rng.integers(30, 50)) ** 2 + (ys - 30) ** 2 < rng.integers(12, 20) ** 2
        image = rng.integers(0, 120, (60, 80, 3), np.uint8) + mask[..., None].astype(np.uint8) * 100
        cv2.imwrite(str(images / f"{i:03}.jpg"), image)
        cv2.imwrite(str(masks / f"{i:03}.png"), mask.astype(np.uint8) * 255)


def train(data: Path, out: Path, samples: int) -> None:
    command = [sys.executable, str(PROOF / "segmenter.py"), "train", "--data", str(data), "--out", str(out)]
    command += ["--samples", str(samples), "--batch", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_training_goes_on_and_its_weights_load(duts, tmp_path, monkeypatch):
    import segmenter
    import segmenter_card

    from segrl import segmenters

    train(duts, tmp_path, 8)
    train(duts, tmp_path, 12)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    for module in (segmenter, segmenter_card):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights" / "model.safetensors")
    segmenter.ship(tmp_path, duts, None, "A test.")
    card = (tmp_path / "weights" / "README.md").read_text()
    assert "| one point | 0." in card
    assert "A test." in card
    loaded = segmenters.load("tiny", weights=str(tmp_path / "weights" / "model.safetensors"))
    assert sum(one.numel() for one in loaded.network.parameters()) < 3_000_000


def test_the_eyes_of_the_policy_for_photographs_are_trained(duts, tmp_path):
    from segrl import policies

    command = [sys.executable, "-W", "ignore", str(PROOF / "photographs_eyes.py"), "--data", str(duts)]
    command += ["--out", str(tmp_path), "--batch", "2", "--samples"]
    for samples, steps in (("4", 2), ("6", 3)):
        done = subprocess.run([*command, samples], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout.splitlines()[0])
        assert row["step"] == steps
        assert 0 <= row["box_iou"] <= 1
        assert 0 <= row["train_sides_iou"] <= 1
    assert policies.load(str(tmp_path / "model")).answer_format == "seg-r1"


@pytest.mark.timeout(900)
def test_the_policy_for_photographs_comes_about_from_eyes_to_page(duts, tmp_path, monkeypatch):
    import photographs
    import photographs_page

    import segrl
    from segrl import tiny
    from segrl.errors import SegrlError

    draw(tmp_path / "ecssd" / "images", tmp_path / "ecssd" / "ground_truth_mask", 2, np.random.default_rng(1))
    page, out = tmp_path / "page.md", tmp_path / "out"
    begin, end = photographs_page.SHOW
    page.write_text(f"# Title\n{begin}{end}\n{photographs_page.BEGIN}\nof an earlier run\n{photographs_page.END}\n")
    command = [sys.executable, "-W", "ignore", str(PROOF / "photographs.py"), "run", "--short", "--duts", str(duts)]
    command += ["--ecssd", str(tmp_path / "ecssd"), "--out", str(out), "--page", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for arm in ("the eyes", "cold_start", "rl-0", "more_sft", "shuffled"):
        assert f"training {arm}" in done.stdout
    text = page.read_text()
    for part in ("# Title", "## DUTS-TE: 3 pictures", "## ECSSD: 2 pictures", "| the best constant answer |", "0.939"):
        assert part in text
    assert "of an earlier run" not in text
    assert "nan" not in text
    assert {path.name for path in (out / "pictures").iterdir()} == {
        f"{name}-{which}.jpg" for name in ("DUTS-TE", "ECSSD") for which in ("first", "worst")
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.splitlines() == [f"wrote {page}"]
    assert page.read_text() == text

    monkeypatch.setattr(tiny, "PHOTOS", tmp_path / "weights")
    photographs.ship(out, "A test.", page)
    assert "(images/photographs.jpg)" in page.read_text()
    assert (tmp_path / "images" / "photographs.jpg").exists()
    assert "A test." in (tmp_path / "weights" / "README.md").read_text()
    assert sum(path.stat().st_size for path in (tmp_path / "weights").iterdir()) < 12e6
    model = segrl.load("tiny-photos")
    model.segment(np.zeros((60, 80, 3), np.uint8), "the main object")
    with pytest.raises(SegrlError, match="needs a larger one"):
        model.segment(np.zeros((60, 80, 3), np.uint8), "the red cup")


def test_simulated_prompts_are_about_the_mask(duts, tmp_path):
    from segmenter_samples import click, fresh, loosen, next_round, split, unpack

    pictures = unpack(duts, tmp_path)
    training, held_out = split(pictures)
    assert len(training) == 39
    assert held_out == [0, 20, 40]
    rng = np.random.default_rng(0)
    for _ in range(60):
        sample = fresh(pictures, training, rng)
        for (x, y), label in zip(sample.points, sample.labels, strict=True):
            assert sample.mask[int(y), int(x)] == label
        crop = sample.crop()
        again = next_round(sample, np.full((32, 32), -1, np.float32), crop, rng)
        if again is not None and len(again.points) > len(sample.points):
            assert again.labels[-1] == 1  # nothing was answered: the object is missed
    mask = pictures.pair(1)[1]
    x1, y1, x2, y2 = loosen(mask, 0.0, rng)
    assert mask[:, : int(x1)].sum() == mask[: int(y1)].sum() == mask[:, int(x2) :].sum() == mask[int(y2) :].sum() == 0
    assert click(mask, mask, rng) is None
    added = np.ones_like(mask)
    (x, y), label = click(mask, added, None)
    assert label == 0
    assert mask[int(y), int(x)] == 0
