"""Readers of reasoning segmentation beyond ReasonSeg, on a few rows in the authors' layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import box_mask, coco_image, rectangle, save_image, save_json, save_mask

from segrl import datasets
from segrl.errors import DataError
from segrl.masks import to_rle

HW = (8, 12)
LEFT, RIGHT = box_mask((1, 1, 4, 6)), box_mask((7, 2, 11, 7))


def picture(place: Path) -> dict[str, Any]:
    return {"bytes": save_image(place / "picture.png").read_bytes(), "path": None}


def save_table(place: Path, rows: list[dict[str, Any]], split: str | None) -> Path:
    import datasets as hf

    table = hf.Dataset.from_list(rows).cast_column("image", hf.Image())
    (table if split is None else hf.DatasetDict({split: table})).save_to_disk(place)
    return place


@pytest.mark.parametrize("name", ["star", "reasonseg-x"])
def test_training_rows_have_several_objects(tmp_path: Path, name: str):
    row = {"problem": " the cups ", "solution_mask": [LEFT.tolist(), RIGHT.tolist()], "image": picture(tmp_path)}
    place = save_table(tmp_path / "table", [row | {"rtype": "spatial"}], "train")
    (example,) = datasets.load(name, root=str(place), split="train")
    assert (example.query, example.tags["kind"]) == ("the cups", "spatial")
    np.testing.assert_array_equal(example.targets, [LEFT, RIGHT])


@pytest.mark.parametrize("split", [None, "test"])
@pytest.mark.parametrize("name", ["reasonseg-r", "reasonseg-x"])
def test_evaluation_rows_have_one_mask(tmp_path: Path, name: str, split: str | None):
    """Saved whole or as the one split, which is called test on the hub."""
    row = {"text": "what keeps dry", "mask": LEFT.tolist(), "ann_id": "7", "image": picture(tmp_path)}
    rows = [row | {"reasoning_type": "function"}, row | {"mask": np.zeros(HW, dtype=bool).tolist(), "ann_id": "8"}]
    place = save_table(tmp_path / "ReasonSegX_val", rows, split)
    root = place if name == "reasonseg-r" else tmp_path
    first, second = datasets.load(name, root=str(root))
    assert (first.id, first.query, dict(first.tags)) == ("7", "what keeps dry", {"kind": "function"})
    np.testing.assert_array_equal(first.targets, [LEFT])
    assert second.targets.shape == (0, *HW)


def test_a_table_of_another_kind_is_refused(tmp_path: Path):
    place = save_table(tmp_path / "table", [{"text": "a cup", "image": picture(tmp_path)}], "train")
    with pytest.raises(DataError, match=r"is no table of StAR's: it has text, image"):
        datasets.load("star", root=str(place))
    with pytest.raises(DataError, match=r"cannot read the split|there is no"):
        datasets.load("star", root=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="has the splits train, val and test, not 'dev'"):
        datasets.load("reasonseg-x", split="dev")


POLYGONS = [{"id": 5, "segmentation": [rectangle(1, 1, 4, 6)]}, {"id": 6, "segmentation": [rectangle(7, 2, 11, 7)]}]
RUNS = [{"id": 5, "segmentation": to_rle(LEFT)}, {"id": 6, "segmentation": to_rle(RIGHT)}]


@pytest.mark.parametrize(
    ("name", "objects", "key", "id_key"),
    [("muse", POLYGONS, "answer", "id"), ("mmr", RUNS, "answers", "image_id")],
)
def test_questions_about_several_objects(tmp_path: Path, name: str, objects: Any, key: str, id_key: str):
    save_image(tmp_path / "images" / "train2017" / "9.jpg")
    entry = {
        id_key: 9,
        "height": HW[0],
        "width": HW[1],
        "coco_url": "http://images.cocodataset.org/train2017/9.jpg",
        "questions": ["Both?", "The left one?", "None of them?"],
        key: [objects, objects[:1], []],
    }
    save_json(tmp_path / f"{name.upper()}_val.json", [entry])
    found = datasets.load(name, root=tmp_path)
    assert [(one.id, one.query, len(one.targets)) for one in found] == [
        ("9-0", "Both?", 2),
        ("9-1", "The left one?", 1),
        ("9-2", "None of them?", 0),
    ]
    np.testing.assert_array_equal(found[0].targets, [LEFT, RIGHT])
    with pytest.raises(DataError, match=rf"there is no .*{name.upper()}_test\.json; there are {name.upper()}_val"):
        datasets.load(name, root=tmp_path, split="test")
    for broken in ({"questions": 3}, {"height": "x"}, {"coco_url": "..", "file_name": None}):
        save_json(tmp_path / f"{name.upper()}_val.json", [entry | broken])
        with pytest.raises(DataError):
            datasets.load(name, root=tmp_path)


@pytest.mark.parametrize("folder", ["val", "EarthReason/val", "rs_reason_seg/RSReasonSeg/val", "val/val"])
def test_earthreason(tmp_path: Path, folder: str):
    place = tmp_path / folder
    for name, mask in (("a", LEFT), ("b", np.zeros(HW, dtype=bool))):
        save_image(place / "images" / f"{name}.jpg")
        save_mask(place / "labels" / f"{name}.png", mask)
        save_json(place / "QAs" / f"{name}.json", {"questions": ["Where to land?", "A runway?"], "answers": ["…"]})
    found = datasets.load("earthreason", root=tmp_path)
    assert [one.id for one in found] == ["a-0", "a-1", "b-0", "b-1"]
    np.testing.assert_array_equal(found[1].targets, [LEFT])
    assert len(found[2].targets) == 0
    assert [one.query for one in datasets.load("earthreason", root=tmp_path, questions="first")] == [
        "Where to land?"
    ] * 2
    (place / "labels" / "a.png").unlink()
    with pytest.raises(DataError, match="has no mask"):
        datasets.load("earthreason", root=tmp_path)


def test_lvis_categories_are_queries_with_several_objects(tmp_path: Path):
    def one(number: int, category: int, mask: Any) -> dict[str, Any]:
        return {"id": number, "image_id": 1, "category_id": category, "segmentation": [mask], "bbox": [1, 1, 3, 5]}

    save_image(tmp_path / "images" / "train2017" / "000000000001.jpg")
    image = coco_image(1) | {
        "coco_url": "http://images.cocodataset.org/train2017/000000000001.jpg",
        "not_exhaustive_category_ids": [3],
        "neg_category_ids": [4],
    }
    image.pop("file_name")  # LVIS names its pictures by address alone
    names = {1: "cup", 2: "traffic_light", 3: "book", 4: "crab_(animal)"}
    boxes = [rectangle(1, 1, 4, 6), rectangle(7, 2, 11, 7)]
    annotations = [one(1, 1, boxes[0]), one(2, 2, boxes[0]), one(3, 1, boxes[1]), one(4, 3, boxes[1])]
    content = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    save_json(tmp_path / "lvis_v1_train.json", content)
    found = datasets.load("lvis", root=tmp_path, negatives=True)
    assert [(one.query, len(one.targets)) for one in found] == [("cup", 2), ("traffic light", 1), ("crab (animal)", 0)]
    assert [one.query for one in datasets.load("lvis", root=tmp_path, objects=[2, 9])] == ["cup"]
    save_json(tmp_path / "lvis_v1_train.json", {"images": [image]})
    with pytest.raises(DataError, match="is no LVIS JSON: KeyError"):
        datasets.load("lvis", root=tmp_path)
