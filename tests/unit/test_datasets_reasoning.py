"""ReasonSeg in LISA's files, LISA-Grounding in VLM-R1's."""

import json

import numpy as np
import pytest
from dataset_files import box_mask, save_image, save_json

from segrl import datasets
from segrl.errors import DataError


def shape(label, x1, y1, x2, y2):
    corners = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    return {"label": label, "labels": [label], "shape_type": "polygon", "points": corners, "group_id": None}


def write(root, stem, text, shapes, is_sentence=True, split="val", **image):
    folder = root / "ReasonSeg" / split
    save_image(folder / f"{stem}.jpg", (20, 16), **image)
    return save_json(folder / f"{stem}.json", {"text": text, "is_sentence": is_sentence, "shapes": shapes})


def test_all_texts_with_their_kind(tmp_path):
    write(tmp_path, "b", [" the thing that rings ", "what rings"], [shape("target", 2, 2, 8.9, 6.2)])
    write(tmp_path, "a", ["bell"], [shape("target", 1, 1, 4, 4), shape("target", 10, 1, 14, 4)], is_sentence=False)
    examples = datasets.load("reasonseg", root=tmp_path)
    assert [(e.id, e.query, e.tags["kind"]) for e in examples] == [
        ("a-0", "bell", "short"),
        ("b-0", "the thing that rings", "long"),
        ("b-1", "what rings", "long"),
    ]
    assert examples.n_images == 2
    assert all(e.targets.shape == (1, 16, 20) and e.ignore is None for e in examples)
    assert np.array_equal(examples[1].truth, box_mask((2, 2, 9, 7), (16, 20)))  # the outline belongs to it
    assert examples[1].image_id == examples[2].image_id
    assert len(datasets.load("reasonseg", root=tmp_path / "ReasonSeg")) == 3


def test_ignore_polygons_cut_into_larger_targets_and_lie_under_smaller_ones(tmp_path):
    shapes = [
        shape("Ignore", 4, 4, 6, 6),
        shape("target", 0, 0, 10, 10),
        shape("ignore", 12, 0, 19, 15),
        shape("target", 14, 4, 16, 6),
        shape("FLAG", 0, 0, 19, 15),
    ]
    write(tmp_path, "a", ["x"], shapes)
    (example,) = datasets.load("reasonseg", root=tmp_path)
    assert example.ignore[4:7, 4:7].all()
    assert not example.truth[4:7, 4:7].any()
    assert example.truth[4:7, 14:17].all()
    assert not (example.truth & example.ignore).any()
    assert example.truth.sum() == 11 * 11 - 9 + 9


@pytest.mark.parametrize("first", ["target", "ignore"])
def test_of_equal_polygons_the_first_in_the_file_counts(tmp_path, first):
    """As LISA's script draws them: areas sorted ascending, then reversed."""
    second = {"target": "ignore", "ignore": "target"}[first]
    write(tmp_path, "a", ["x"], [shape(first, 1, 1, 5, 5), shape(second, 1, 1, 5, 5)])
    (example,) = datasets.load("reasonseg", root=tmp_path)
    assert len(example.targets) == (first == "target")
    assert (example.ignore is None) == (first == "target")


def test_files_written_on_windows_images_of_any_kind_and_no_target(tmp_path):
    path = write(tmp_path, "a", ["?"], [], mode="CMYK")
    row = json.loads(path.read_text()) | {"text": ["the café"]}
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode("cp1252"))
    write(tmp_path, "b", "one text", [shape("target", 0, 0, 3, 9)], mode="L", orientation=6)
    none, turned = datasets.load("reasonseg", root=tmp_path)
    assert none.query == "the café"
    assert none.targets.shape == (0, 16, 20)
    assert turned.query == "one text"
    assert (turned.image.mode, turned.image.size, turned.targets.shape) == ("RGB", (16, 20), (1, 20, 16))


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(DataError, match="ReasonSeg test"):
        datasets.load("reasonseg", root=tmp_path, split="test")
    with pytest.raises(DataError, match="train, val, test"):
        datasets.load("reasonseg", root=tmp_path, split="testA")
    path = write(tmp_path, "a", ["x"], [shape("target", 1, 1, 4, 4)])
    path.with_suffix(".jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg is missing"):
        datasets.load("reasonseg", root=tmp_path)
    for wrong in ({"text": []}, {"text": [], "is_sentence": True, "shapes": [{"label": "target", "points": [1]}]}):
        save_json(path, wrong)
        with pytest.raises(DataError, match=r"a\.json is no annotation"):
            datasets.load("reasonseg", root=tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json"):
        datasets.load("reasonseg", root=tmp_path)


REQUEST = "Please provide the bounding box coordinate of the region this sentence describes: "


def test_lisa_grounding(tmp_path):
    save_image(tmp_path / "test" / "a.jpg")
    rows = [
        {"image": "test/a.jpg", "problem": REQUEST + "the camera lens", "solution": [1, 2, 4, 6]},
        {"image": "test/a.jpg", "problem": "where is it warm?", "solution": [0.0, 0.0, 20.0, 3.0]},
    ]
    save_json(tmp_path / "lisa_test.json", rows)
    lens, warm = datasets.load("lisa-grounding", root=tmp_path)
    assert (lens.query, warm.query) == ("the camera lens", "where is it warm?")
    assert lens.meta == {"boxes_xyxy": ((1.0, 2.0, 4.0, 6.0),), "truth": "box"}
    assert np.array_equal(lens.truth, box_mask((1, 2, 4, 6)))
    assert np.array_equal(warm.truth, box_mask((0, 0, 12, 3)))  # the image ends before the box
    assert lens.image_id == warm.image_id
    assert len(datasets.load("lisa-grounding", root=tmp_path, sample={"n": 1})) == 1


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"image": "a.jpg", "problem": "x"}, "row 0"),
        ({"image": "a.jpg", "problem": "x", "solution": [1, 2, 3]}, "row 0"),
        ({"image": "a.jpg", "problem": "x", "solution": [4, 2, 1, 6]}, "no box"),
        ({"image": "b.jpg", "problem": "x", "solution": [1, 2, 4, 6]}, r"b\.jpg is missing"),
        ({"image": "a.jpg", "problem": "x", "solution": [30, 2, 40, 6]}, "outside"),
    ],
)
def test_lisa_rows_that_cannot_be_used_are_named(tmp_path, row, hint):
    save_image(tmp_path / "a.jpg")
    save_json(tmp_path / "lisa_test.json", [row])
    with pytest.raises(DataError, match=hint):
        datasets.load("lisa-grounding", root=tmp_path)[0]
