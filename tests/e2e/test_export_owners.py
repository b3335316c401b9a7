"""Exports opened by the libraries that own the formats, each in an environment of its own.

A folder as `segrl segment` leaves it: photographs of several kinds, two queries, one of them with nothing there,
objects with holes and in several parts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from owners import environment, run
from PIL import Image

from segrl import exports
from segrl.exports import Found, ImageRecord
from segrl.masks import to_rle
from segrl.types import Status

pytestmark = pytest.mark.long

QUERIES = ("the red ring", "红色的杯子", "nothing")
SIZE_WH = (160, 120)


def masks(seed: int) -> list[np.ndarray]:
    """A ring, and an object of two parts."""
    ys, xs = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    distance = np.hypot(xs - 60 - seed, ys - 50)
    two = (np.hypot(xs - 20, ys - 100) < 12) | (np.hypot(xs - 130, ys - 25 - seed) < 14)
    return [(distance < 35) & (distance > 12), two]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    records = []
    for i, name in enumerate(("a/dog.jpg", "a/cat.png", "b/猫.jpg", "b/c.gif")):
        image = out.parent / "photos" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (*SIZE_WH[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(image)
        ring, two = masks(i)
        answers = (
            Found(QUERIES[0], Status.OK, "", None, "", (), (to_rle(ring),), (0.9,)),
            Found(QUERIES[1], Status.OK, "", None, "", (), (to_rle(two),), (0.5,)),
            Found(QUERIES[2], Status.NO_TARGET, "", None, "", (), ()),
        )
        records.append(ImageRecord(str(image), name, name.rpartition(".")[0], SIZE_WH, answers))
    for name in exports.names():
        export = exports.get(name)(out, QUERIES)
        for record in records:
            export.add(record)
        export.finish(records)
    return out


def areas(n: int) -> list[int]:
    """Of the first query's masks."""
    return [int(masks(i)[0].sum()) for i in range(n)]


def test_datumaro_reads_coco_as_a_stream_and_whole(out: Path, tmp_path_factory, tmp_path: Path) -> None:
    python = environment(tmp_path_factory.getbasetemp() / "datumaro", ["datumaro"])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(out.parent / "photos")
    (tmp_path / "annotations" / "instances_default.json").write_text((out / "coco.json").read_text())
    code = """
import json, sys
from datumaro.components.dataset import Dataset, StreamDataset
found = []
for kind in (Dataset, StreamDataset):
    data = kind.import_from(sys.argv[1], "coco")
    for item in data:
        for one in item.annotations:
            label = data.categories()[list(data.categories())[0]].items[one.label].name
            found.append([kind.__name__, item.id, label, one.type.name, one.attributes.get("score"), one.get_area()])
print(json.dumps(found))
"""
    found = json.loads(run(python, code, tmp_path, cwd=tmp_path).splitlines()[-1])
    for kind in ("Dataset", "StreamDataset"):
        rows = [row[1:] for row in found if row[0] == kind]
        assert {row[1] for row in rows} == set(QUERIES[:2])
        assert {row[0] for row in rows} == {"a/dog", "a/cat", "b/猫", "b/c"}
        assert {row[3] for row in rows} == {0.9, 0.5}


def test_faster_coco_eval_finds_our_own_drafts_perfect(out: Path, tmp_path_factory, tmp_path: Path) -> None:
    python = environment(tmp_path_factory.getbasetemp() / "faster-coco-eval", ["faster-coco-eval", "pycocotools"])
    code = """
import json, sys
from faster_coco_eval import COCO, COCOeval_faster
truth = COCO(sys.argv[1])
found = truth.loadRes([dict(one) for one in truth.dataset["annotations"]])
check = COCOeval_faster(truth, found, "segm")
check.evaluate(); check.accumulate(); check.summarize()
print(json.dumps([check.stats[0], len(truth.getImgIds())]))
"""
    precision, images = json.loads(run(python, code, out / "coco.json", cwd=tmp_path).splitlines()[-1])
    assert (round(precision, 6), images) == (1.0, 4)


def test_ultralytics_trains_on_yolo_as_it_lies(out: Path, tmp_path_factory, tmp_path: Path) -> None:
    shared, others = ["ultralytics", "ultralytics-thop"], ["polars", "matplotlib", "psutil", "requests", "nvidia-ml-py"]
    python = environment(tmp_path_factory.getbasetemp() / "ultralytics", others, shared)
    moved = tmp_path / "moved" / "yolo"  # it may lie anywhere
    moved.parent.mkdir()
    (out / "yolo").rename(moved)
    code = """
import json, sys
from ultralytics import YOLO
model = YOLO("yolo11n-seg.yaml")
model.train(data=sys.argv[1], epochs=1, imgsz=64, batch=4, device="cpu", workers=0, plots=False, val=True, amp=False,
            project=sys.argv[2], pretrained=False, optimizer="SGD", exist_ok=True)
labels = [row["cls"].ravel().tolist() for row in model.trainer.train_loader.dataset.labels]
polygons = [len(row["segments"]) for row in model.trainer.train_loader.dataset.labels]
print(json.dumps([sorted(labels), polygons, model.trainer.data["names"]]))
"""
    ran = run(python, code, moved / "data.yaml", tmp_path / "runs", cwd=tmp_path)
    labels, polygons, names = json.loads(ran.splitlines()[-1])
    assert labels == [[0.0, 1.0, 1.0]] * 4
    assert polygons == [3] * 4
    assert list(names.values()) == list(QUERIES)


def test_labelme_opens_its_files(out: Path, tmp_path_factory, tmp_path: Path, monkeypatch) -> None:
    """Each with its image; its own masks of the polygons are ours within what makes them editable."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    python = environment(tmp_path_factory.getbasetemp() / "labelme", ["labelme"])
    code = """
import json, sys
from pathlib import Path
import numpy as np
try:
    from labelme.label_file import LabelFile
except ImportError:  # since 6.0
    from labelme._label_file import LabelFile
from labelme.utils import shape_to_mask
found = {}
for path in sorted(Path(sys.argv[1]).rglob("*.json")):
    opened = LabelFile(str(path))
    size_wh = 160, 120
    masks = {}
    for shape in opened.shapes:
        mask = shape_to_mask(size_wh[::-1], shape["points"], shape["shape_type"])
        masks[shape["label"]] = masks.get(shape["label"], False) | mask
    texts = sorted({str(shape["description"]) for shape in opened.shapes})
    found[path.stem] = [len(opened.imageData), texts, {k: np.flatnonzero(v).tolist() for k, v in masks.items()}]
print(json.dumps(found))
"""
    found = json.loads(run(python, code, out / "labelme", cwd=tmp_path).splitlines()[-1])
    assert set(found) == {"dog", "cat", "猫", "c"}
    for i, name in enumerate(("dog", "cat", "猫", "c")):
        n_bytes, texts, drawn = found[name]
        assert n_bytes > 100
        assert texts == ["score 0.50", "score 0.90"]
        assert set(drawn) == set(QUERIES[:2])
        for query, mask in zip(QUERIES[:2], masks(i), strict=True):
            ours, theirs = set(np.flatnonzero(mask).tolist()), set(drawn[query])
            assert len(ours & theirs) / len(ours | theirs) > 0.9


def test_label_studio_takes_tasks_and_interface(out: Path, tmp_path_factory, tmp_path: Path) -> None:
    python = environment(tmp_path_factory.getbasetemp() / "label-studio-sdk", ["label-studio-sdk"])
    code = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(open(sys.argv[1] + "/interface.xml", encoding="utf-8").read())
interface.validate()
tasks = json.load(open(sys.argv[1] + "/tasks.json", encoding="utf-8"))
for task in tasks:
    interface.validate_task({"data": task["data"]})
    for prediction in task["predictions"]:
        errors = interface.validate_prediction(prediction, return_errors=True)
        assert not errors, errors
print(json.dumps([len(tasks), interface.get_control("label").labels]))
"""
    count, labels = json.loads(run(python, code, out / "label-studio", cwd=tmp_path).splitlines()[-1])
    assert (count, list(labels)) == (4, list(QUERIES))


def test_fiftyone_imports_coco(out: Path, tmp_path_factory, tmp_path: Path) -> None:
    """Its importer, without the database that a data set of its own needs and that no package index has."""
    python = environment(tmp_path_factory.getbasetemp() / "fiftyone", ["fiftyone", "pycocotools"])
    code = """
import json, sys
from fiftyone.utils.coco import COCODetectionDatasetImporter
places = {"data_path": sys.argv[1], "labels_path": sys.argv[2], "label_types": ["segmentations"], "extra_attrs": True}
rows = []
with COCODetectionDatasetImporter(**places) as importer:
    for path, metadata, found in importer:
        for one in found.detections:
            score = one.confidence if one.confidence is not None else one["score"]
            rows.append([one.label, score, one.mask is not None, metadata.width])
print(json.dumps(sorted(rows)))
"""
    rows = json.loads(run(python, code, out.parent / "photos", out / "coco.json", cwd=tmp_path).splitlines()[-1])
    assert rows == sorted([[QUERIES[0], 0.9, True, 160], [QUERIES[1], 0.5, True, 160]] * 4)
