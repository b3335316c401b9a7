"""Every export read back, by the library that owns the format where it is here."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from segrl import datasets, exports
from segrl.errors import SegrlError
from segrl.masks import from_rle, read_png
from segrl.pipeline import Result
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status

QUERIES = ("the ring", "the / cat?", "unread")
WIDTH, HEIGHT = 67, 41


def ring_and_specks() -> np.ndarray:
    masks = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(xs - 30, ys - 20)
    masks[0] = (distance < 18) & (distance > 7)
    masks[1] = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.6
    masks[1, 0, 0] = masks[1, HEIGHT - 1, WIDTH - 1] = True
    return masks


@pytest.fixture
def records(tmp_path: Path) -> list[exports.ImageRecord]:
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    nothing = np.zeros((0, HEIGHT, WIDTH), dtype=bool)
    prompts = (MaskPrompt((1, 2, 30, 40), ((3.5, 4),), (1,), ORIGINAL), MaskPrompt((0, 0, 9, 9), frame=ORIGINAL))
    made = []
    for name in ("a/x", "b"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        results = [
            Result(image, QUERIES[0], "…", Answer(Status.OK, prompts, "because"), ring_and_specks()),
            Result(image, QUERIES[1], "[]", Answer(Status.NO_TARGET), nothing),
            Result(image, QUERIES[2], "?", Answer(Status.NO_ANSWER, detail="no tags"), nothing),
        ]
        results = results if name == "a/x" else results[1:]
        made.append(exports.record(str(path), results, file_name=f"{name}.png", name=name))
    return made


def write(name: str, out: Path, records: list[exports.ImageRecord]) -> Path:
    export = exports.get(name)(out, QUERIES)
    for record in records:
        export.add(record)
        assert all(path.exists() for path in export.files(record))
    path = export.finish(records)
    assert not [left for left in out.rglob("*") if ".part" in left.name]
    return path


def test_a_record_survives_its_line(records: list[exports.ImageRecord]) -> None:
    for record in records:
        assert exports.ImageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_coco_is_read_by_pycocotools(tmp_path, records, capsys) -> None:
    from pycocotools.coco import COCO

    coco = COCO(write("coco", tmp_path, records))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a/x.png", "b.png"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(QUERIES)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert coco.getAnnIds(imgIds=[2]) == []
    for annotation, mask in zip(annotations, ring_and_specks(), strict=True):
        assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
        assert annotation["area"] == mask.sum()
    assert annotations[1]["bbox"] == [0, 0, WIDTH, HEIGHT]
    examples = datasets.load("coco", root=str(tmp_path), annotations="coco.json", images="photos")
    assert np.array_equal(examples[0].targets, ring_and_specks())


def test_yolo_is_filled_as_its_readers_fill(tmp_path, records) -> None:
    folder = write("yolo", tmp_path, records)
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == list(QUERIES)
    assert (folder / "labels" / "b.txt").read_text() == ""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    for line in (folder / "labels" / "a" / "x.txt").read_text().splitlines():
        place, *shares = line.split()
        assert place == "0"
        assert len(shares) >= 6
        ring = np.array(shares, dtype=float).reshape(-1, 2)
        assert 0 <= ring.min() <= ring.max() <= 1
        cv2.fillPoly(drawn, [(ring * (WIDTH, HEIGHT)).astype(np.int32)], 1)
    assert np.array_equal(drawn.astype(bool), ring_and_specks().any(axis=0))


def test_rle_lines_are_a_data_set(tmp_path, records) -> None:
    path = write("rle", tmp_path, records)
    examples = datasets.load("jsonl", root=str(tmp_path), file=path.name)
    assert [example.tags["status"] for example in examples] == [
        "ok",
        "no_target",
        "no_answer",
        "no_target",
        "no_answer",
    ]
    assert np.array_equal(examples[0].targets, ring_and_specks())
    assert examples[1].targets.shape == (0, HEIGHT, WIDTH)


def test_png_masks(tmp_path, records) -> None:
    folder = write("png", tmp_path, records)
    assert np.array_equal(read_png(folder / "1-the-ring" / "a" / "x.png"), ring_and_specks().any(axis=0))
    assert not read_png(folder / "2-the-cat" / "b.png").any()
    assert (folder / "3-unread" / "b.png").exists()
    assert not (folder / "1-the-ring" / "b.png").exists()


def test_labelme_fills_its_shapes_to_the_masks(tmp_path, records) -> None:
    folder = write("labelme", tmp_path, records)
    assert json.loads((folder / "b.json").read_text())["shapes"] == []
    content = json.loads((folder / "a" / "x.json").read_text())
    assert (folder / "a" / content["imagePath"]).resolve() == Path(records[0].image).resolve()
    assert (content["imageHeight"], content["imageWidth"]) == (HEIGHT, WIDTH)
    for group, mask in enumerate(ring_and_specks(), 1):
        drawn = Image.new("1", (WIDTH, HEIGHT))
        for shape in content["shapes"]:
            if shape["group_id"] == group:  # as labelme.utils.shape_to_mask does
                ImageDraw.Draw(drawn).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
        assert np.array_equal(np.array(drawn), mask)


def test_overlays(tmp_path, records) -> None:
    folder = write("overlay", tmp_path, records)
    with Image.open(folder / "1-the-ring" / "a" / "x.jpg") as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
        assert np.ptp(np.array(drawn)) > 100
    with Image.open(folder / "2-the-cat" / "a" / "x.jpg") as drawn:
        assert np.ptp(np.array(drawn)) < 10


def test_names_and_nearest() -> None:
    assert set(exports.names()) == {"coco", "yolo", "rle", "png", "labelme", "overlay"}
    with pytest.raises(SegrlError, match="did you mean coco"):
        exports.get("cocoa")
    assert exports.query_folder(4, "猫") == "5"


def test_what_masks_are_kept_is_what_was_found(records) -> None:
    kept = np.stack([from_rle(rle) for rle in records[0].answers[0].masks])
    assert np.array_equal(kept, ring_and_specks())
