"""Every export read back, by the library that owns the format where it is here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from segrl import datasets, exports
from segrl.errors import SegrlError
from segrl.exports.yolo import _lines as yolo_lines
from segrl.masks import from_rle, polygons_to_mask, read_mask, to_rle
from segrl.result import Result
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status

SCORES = np.array([0.9, 0.25], np.float32)
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
            Result(image, QUERIES[0], "…", Answer(Status.OK, prompts, "because"), ring_and_specks(), SCORES),
            Result(image, QUERIES[1], "[]", Answer(Status.NO_TARGET), nothing),
            Result(image, QUERIES[2], "?", Answer(Status.NO_ANSWER, detail="no tags"), nothing),
        ]
        results = results if name == "a/x" else results[1:]
        made.append(exports.record(str(path), results, file_name=f"{name}.png", name=name))
    return made


def write(name: str, out: Path, records: list[exports.ImageRecord], exact: bool = True) -> Path:
    export = exports.get(name)(out, QUERIES, exports.Style(exact_polygons=exact))
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
    assert [annotation["score"] for annotation in annotations] == [0.9, 0.25]
    assert coco.dataset["licenses"] == []
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


def test_yolo_lies_as_it_is_trained_on(tmp_path, records) -> None:
    folder = write("yolo", tmp_path, records)
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert (content["train"], content["val"], "path" in content) == ("images", "images", False)
    assert (folder / "images" / "a" / "x.png").read_bytes() == Path(records[0].image).read_bytes()
    gif = Path(records[0].image).with_suffix(".gif")
    Image.new("RGB", (WIDTH, HEIGHT), (9, 90, 9)).save(gif)
    exports.get("yolo")(tmp_path, QUERIES).add(dataclasses.replace(records[0], image=str(gif), name="gif"))
    with Image.open(folder / "images" / "gif.png") as copy:
        assert copy.size == (WIDTH, HEIGHT)


def test_yolo_is_loaded_by_supervision(tmp_path, records) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    folder = write("yolo", tmp_path, records)
    for name, found in (("a", True), (".", False)):
        labels = folder / "labels" / name
        loaded = supervision.DetectionDataset.from_yolo(
            images_directory_path=str(folder / "images" / name),
            annotations_directory_path=str(labels),
            data_yaml_path=str(folder / "data.yaml"),
            force_masks=True,
        )
        assert loaded.classes == list(QUERIES)
        ((_, _, detections),) = list(loaded)
        if found:
            assert set(detections.class_id) == {0}
            assert np.array_equal(detections.mask.any(axis=0), ring_and_specks().any(axis=0))
        else:
            assert len(detections) == 0


@given(hnp.arrays(bool, st.tuples(st.integers(1, 23), st.integers(1, 31))), st.sampled_from([1, 40]))
def test_yolo_corners_are_the_same_pixels_rounded_and_cut(mask, scale) -> None:
    """Up to images of 1,240 pixels a side, in the single precision of supervision."""
    big = mask.repeat(scale, axis=0).repeat(scale, axis=1)
    rle, (height, width) = to_rle(big), big.shape
    found = exports.Found("q", Status.OK, "", None, "", (), (rle,))
    for to_pixels in (np.round, np.trunc):
        drawn = np.zeros(big.shape, np.uint8)
        for line in yolo_lines(found, 0):
            ring = np.array(line.split()[1:], dtype=np.float32).reshape(-1, 2) * np.array([width, height], np.float32)
            cv2.fillPoly(drawn, [to_pixels(ring).astype(np.int32)], 1)
        assert np.array_equal(drawn.astype(bool), big)


def test_rle_lines_are_read_by_pycocotools(tmp_path, records) -> None:
    from pycocotools import mask as coco

    first = json.loads(write("rle", tmp_path, records).read_text().splitlines()[0])
    for rle, mask in zip(first["masks"], ring_and_specks(), strict=True):
        assert np.array_equal(coco.decode(rle).astype(bool), mask)


def test_rle_lines_are_a_data_set_without_what_could_not_be_read(tmp_path, records) -> None:
    path = write("rle", tmp_path, records)
    examples = datasets.load("jsonl", root=str(tmp_path), file=path.name)
    assert [(example.query, example.tags["status"]) for example in examples] == [
        (QUERIES[0], "ok"),
        (QUERIES[1], "no_target"),
        (QUERIES[1], "no_target"),
    ]
    assert np.array_equal(examples[0].targets, ring_and_specks())
    assert examples[1].targets.shape == (0, HEIGHT, WIDTH)


def test_png_masks(tmp_path, records) -> None:
    folder = write("png", tmp_path, records)
    assert np.array_equal(read_mask(folder / "1-the-ring" / "a" / "x.png"), ring_and_specks().any(axis=0))
    assert not read_mask(folder / "2-the-cat" / "b.png").any()
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


def test_labelme_opens_its_files(tmp_path, records) -> None:
    labelme = pytest.importorskip("labelme", reason="pip install labelme, which brings a window system")
    from labelme.utils import shapes_to_label

    folder = write("labelme", tmp_path, records)
    opened = labelme.LabelFile(str(folder / "a" / "x.json"))
    assert opened.image_data == Path(records[0].image).read_bytes()
    values, instances = shapes_to_label((HEIGHT, WIDTH), opened.shapes, {QUERIES[0]: 1})
    assert np.array_equal(values == 1, ring_and_specks().any(axis=0))
    assert set(np.unique(instances)) <= {0, 1, 2}
    assert labelme.LabelFile(str(folder / "b.json")).shapes == []


def test_polygons_to_edit_have_few_points_near_the_mask(tmp_path, records) -> None:
    big = Image.new("1", (640, 480))
    ImageDraw.Draw(big).ellipse((100, 60, 520, 400), fill=1)
    mask = np.array(big)
    found = dataclasses.replace(records[0].answers[0], masks=(to_rle(mask),), scores=(0.5,))
    record = dataclasses.replace(records[0], size_wh=(640, 480), answers=(found,))
    folder = write("labelme", tmp_path, [record], exact=False)
    (shape,) = json.loads((folder / "a" / "x.json").read_text())["shapes"]
    assert len(shape["points"]) <= 40
    assert shape["description"] == "score 0.50"
    drawn = Image.new("1", (640, 480))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) != cv2.erode(mask.astype(np.uint8), np.ones((5, 5)))
    assert not ((np.array(drawn) != mask) & ~rim).any()
    (task,) = json.loads((write("label-studio", tmp_path, [record], exact=False) / "tasks.json").read_text())
    assert len(task["predictions"][0]["result"][0]["value"]["points"]) <= 40


def test_label_studio_tasks_fill_to_the_masks(tmp_path, records) -> None:
    folder = write("label-studio", tmp_path, records)
    interface = ElementTree.fromstring((folder / "interface.xml").read_text())
    assert [label.get("value") for label in interface.iter("Label")] == list(QUERIES)
    first, second = json.loads((folder / "tasks.json").read_text())
    assert first["data"]["image"] == "/data/local-files/?d=a/x.png"
    assert second["predictions"][0]["result"] == []
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.25
    rings = [
        np.array(region["value"]["points"]) * (WIDTH, HEIGHT) / 100
        for region in prediction["result"]
        if region["score"] == 0.9
    ]
    assert np.array_equal(polygons_to_mask([ring.ravel() for ring in rings], (HEIGHT, WIDTH)), ring_and_specks()[0])


def test_labelme_keeps_what_was_corrected(tmp_path, records) -> None:
    folder = write("labelme", tmp_path, records)
    path = folder / "a" / "x.json"
    content = json.loads(path.read_text()) | {"flags": {"checked": True}}
    content["shapes"] = [{**content["shapes"][0], "points": [[1, 1], [5, 1], [5, 5]]}]
    path.write_text(json.dumps(content))
    new = dataclasses.replace(records[0].answers[0], query="the cat")
    record = dataclasses.replace(records[0], answers=(*records[0].answers, new))
    exports.get("labelme")(tmp_path, [*QUERIES, "the cat"]).add(record, ["the cat"])
    after = json.loads(path.read_text())
    assert after["flags"] == {"checked": True}
    assert after["shapes"][0] == content["shapes"][0]
    assert {shape["label"] for shape in after["shapes"][1:]} == {"the cat"}


def test_cut_outs(tmp_path, records) -> None:
    folder = write("cutout", tmp_path, records)
    with Image.open(folder / "1-the-ring" / "a" / "x.png") as cut:
        assert np.array_equal(np.array(cut)[..., 3] == 255, ring_and_specks().any(axis=0))
        assert (np.array(cut)[..., :3] == 90).all()


def test_overlays(tmp_path, records) -> None:
    folder = write("overlay", tmp_path, records)
    with Image.open(folder / "1-the-ring" / "a" / "x.jpg") as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
        assert np.ptp(np.array(drawn)) > 100
    with Image.open(folder / "2-the-cat" / "a" / "x.jpg") as drawn:
        assert np.ptp(np.array(drawn)) < 10


def test_names_and_nearest() -> None:
    assert set(exports.names()) == {"coco", "yolo", "rle", "png", "cutout", "labelme", "label-studio", "overlay"}
    with pytest.raises(SegrlError, match=r"did you mean .coco.\?"):
        exports.get("cocoa")
    assert exports.query_folder(4, "猫") == "5-猫"
    assert exports.query_folder(0, "Красная кошка?!") == "1-красная-кошка"
    assert exports.query_folder(0, "../?") == "1"
    assert len(exports.query_folder(0, "猫" * 300).encode()) <= 125


def test_what_masks_are_kept_is_what_was_found(records) -> None:
    kept = np.stack([from_rle(rle) for rle in records[0].answers[0].masks])
    assert np.array_equal(kept, ring_and_specks())
