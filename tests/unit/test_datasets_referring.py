"""RefCOCO and its family, in the layout of REFER and gRefCOCO."""

import pickle

import numpy as np
import pytest
from dataset_files import (
    TRAIN2014,
    annotation,
    box_mask,
    coco_image,
    crowd_runs,
    rectangle,
    reference,
    save_image,
    save_json,
)

from segrl import datasets
from segrl.errors import DataError

ANNOTATIONS = [
    annotation(1, 101, [rectangle(1, 1, 4, 4)]),
    annotation(2, 101, [rectangle(6, 1, 9, 4), rectangle(6, 6, 9, 8), [0, 0, 3, 3]]),
    annotation(3, 102, crowd_runs(box_mask((2, 2, 7, 5))), iscrowd=1),
    annotation(4, 102, [[1, 1, 1, 1, 1, 1]]),
    annotation(5, 103, [rectangle(0, 0, 5, 5)]),
    annotation(6, 102, [rectangle(0, 0, 2, 2)]),
]
IMAGES = [coco_image(101), coco_image(102), coco_image(103), coco_image(104, (8, 12)), coco_image(101)]


def write(root, name, refs_file, refs):
    for image, mode in zip(IMAGES, ["RGB", "L", "CMYK", "RGB", "RGB"], strict=True):
        save_image(root / TRAIN2014 / image["file_name"], mode=mode, orientation=6 if image["id"] == 104 else 1)
    save_json(root / name / "instances.json", {"images": IMAGES, "annotations": ANNOTATIONS, "categories": []})
    if refs_file.endswith(".p"):
        (root / name / refs_file).write_bytes(pickle.dumps(refs, protocol=2))
    else:
        save_json(root / name / refs_file, refs)
    return root


REFS = [
    reference(0, 101, 1, ["left dog", "dog on left"]),
    reference(1, 101, 2, ["dog in parts"]),
    reference(2, 102, 3, ["the crowd"]),
    reference(3, 103, 5, ["person"], "testA"),
]


@pytest.fixture
def refcoco(tmp_path):
    return write(tmp_path, "refcoco", "refs(unc).p", REFS)


def test_every_expression_is_an_example(refcoco):
    examples = datasets.load("refcoco", root=refcoco)
    assert [e.query for e in examples] == ["left dog", "dog on left", "dog in parts", "the crowd"]
    assert [e.id for e in examples] == ["0-0", "0-1", "1-10", "2-20"]
    assert examples.n_images == 2
    assert examples[0].image_id == examples[2].image_id != examples[3].image_id
    assert all(e.targets.shape == (1, 8, 12) for e in examples)
    assert examples[0].meta == {"boxes_xyxy": ((1, 2, 4, 6),), "raw": "LEFT DOG", "ref_id": 0}
    assert examples[0].tags == {}


def test_polygons_of_several_parts_and_crowd_runs(refcoco):
    examples = datasets.load("refcoco", root=refcoco)
    parts, crowd = examples[2].truth, examples[3].truth
    assert parts[1:4, 6:9].all()
    assert parts[6:8, 6:9].all()
    assert not parts[:, :6].any()
    assert not parts[4:6].any()
    assert np.array_equal(crowd, box_mask((2, 2, 7, 5)))
    assert (examples[3].image.mode, examples[3].image.size) == ("RGB", (12, 8))


def test_splits(refcoco):
    (example,) = datasets.load("refcoco", root=refcoco, split="testA")
    assert example.query == "person"
    assert example.image.mode == "RGB"
    with pytest.raises(DataError, match="testA, val"):
        datasets.load("refcoco", root=refcoco, split="test")


def test_a_sample_is_seeded_and_keeps_the_order(refcoco):
    def queries(**sample):
        return [e.query for e in datasets.load("refcoco", root=refcoco, sample=sample)]

    assert queries(n=2, seed=3) == queries(n=2, seed=3)
    assert len({tuple(queries(n=2, seed=seed)) for seed in range(9)}) > 1
    assert queries(n=4) == queries(n=4, seed=5)
    for wrong in ({"n": 5}, {"n": 0}, {"n": 2, "sed": 1}, {"n": 0.5}):
        with pytest.raises(DataError, match="sample"):
            queries(**wrong)


def test_images_lie_where_they_usually_do_or_where_they_are_said_to(refcoco):
    (refcoco / TRAIN2014).rename(refcoco / "elsewhere")
    with pytest.raises(DataError, match="train2014"):
        datasets.load("refcoco", root=refcoco)
    assert len(datasets.load("refcoco", root=refcoco, images="elsewhere")) == 4
    (refcoco / "elsewhere").rename(refcoco / "train2014")
    assert len(datasets.load("refcoco", root=refcoco)) == 4


def test_missing_files_and_rows_are_named(refcoco):
    (refcoco / TRAIN2014 / IMAGES[1]["file_name"]).unlink()
    with pytest.raises(DataError, match=r"000000000102\.jpg is missing"):
        datasets.load("refcoco", root=refcoco)
    with pytest.raises(DataError, match=r"refcoco\+"):
        datasets.load("refcoco+", root=refcoco)
    write(refcoco, "refcocog", "refs(umd).p", [reference(0, 101, 99, ["x"])])
    with pytest.raises(DataError, match="annotation 99"):
        datasets.load("refcocog", root=refcoco)
    write(refcoco, "refcocog", "refs(umd).p", [reference(0, 999, 1, ["x"])])
    with pytest.raises(DataError, match="image 999"):
        datasets.load("refcocog", root=refcoco)
    write(refcoco, "refcocog", "refs(umd).p", {"not": "a list"})
    with pytest.raises(DataError, match="no list of references"):
        datasets.load("refcocog", root=refcoco)


def test_an_object_without_a_pixel_is_named(tmp_path):
    write(tmp_path, "refcoco+", "refs(unc).p", [reference(7, 102, 4, ["nothing to see"])])
    with pytest.raises(DataError, match="ref 7"):
        datasets.load("refcoco+", root=tmp_path)[0]


def test_refcocog_is_split_in_two_ways(tmp_path):
    write(tmp_path, "refcocog", "refs(umd).p", [reference(0, 101, 1, ["a"])])
    write(tmp_path, "refcocog", "refs(google).p", [reference(0, 101, 1, ["b"]), reference(0, 101, 1, ["b"])])
    assert [e.query for e in datasets.load("refcocog", root=tmp_path)] == ["a"]
    google = datasets.load("refcocog", root=tmp_path, split_by="google")
    assert [e.id for e in google] == ["0-0", "0-0-2"]
    with pytest.raises(DataError, match="umd or google"):
        datasets.load("refcocog", root=tmp_path, split_by="unc")


def test_grefcoco_names_any_number_of_objects(tmp_path):
    refs = [
        reference(0, 101, [1, 2], ["both dogs"]),
        reference(1, 101, [-1], ["the cat"]),
        reference(2, 102, [6, 3], ["all but the crowd"]),
        reference(3, 103, [5], ["the person"]),
    ]
    write(tmp_path, "grefcoco", "grefs(unc).json", refs)
    examples = datasets.load("grefcoco", root=tmp_path)
    assert [len(e.targets) for e in examples] == [2, 0, 1, 1]
    assert [e.tags["kind"] for e in examples] == ["several", "no target", "one", "one"]
    assert [len(e.meta["boxes_xyxy"]) for e in examples] == [2, 0, 1, 1]
    assert np.array_equal(examples[2].truth, examples[2].targets[0])


def test_annotations_of_a_turned_image_are_turned_with_it(tmp_path):
    """COCO_…104.jpg is stored 12×8 and shown 8×12; instances.json gives the upright size or the stored one."""
    stored = [annotation(9, 105, [rectangle(0, 0, 12, 3)])]
    write(tmp_path, "refcoco", "refs(unc).p", [reference(0, 105, 9, ["top"])])
    image = coco_image(105, (12, 8), IMAGES[3]["file_name"])
    save_json(tmp_path / "refcoco" / "instances.json", {"images": [image], "annotations": stored, "categories": []})
    (example,) = datasets.load("refcoco", root=tmp_path)
    assert example.image.size == (8, 12)
    assert np.array_equal(example.truth, box_mask((5, 0, 8, 12), (12, 8)))
    assert example.meta["boxes_xyxy"] == ((5, 0, 8, 12),)
