"""One's own annotations: COCO JSON, JSON Lines, and the masks in them."""

import json

import numpy as np
import pytest
from dataset_files import annotation, box_mask, coco_image, crowd_runs, rectangle, save_image, save_json, save_mask
from hypothesis import given
from hypothesis import strategies as st
from tries import tries

from segrl import datasets
from segrl.errors import DataError
from segrl.masks import decode_segmentation, to_rle

A, B, CROWD = (1, 1, 4, 4), (6, 1, 9, 4), (2, 5, 12, 8)


def write_coco(root, images, annotations):
    for image in images:
        save_image(root / "images" / image["file_name"], (image["width"], image["height"]))
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    save_json(root / "a.json", {"images": images, "annotations": annotations, "categories": categories})
    return root


@pytest.fixture
def coco(tmp_path):
    annotations = [
        annotation(1, 7, [rectangle(*A)], caption="left dog"),
        annotation(2, 7, [rectangle(*B)], caption=" right dog "),
        annotation(3, 7, crowd_runs(box_mask(CROWD)), iscrowd=1, caption="the pack"),
        annotation(4, 8, dict(to_rle(box_mask(A))), category_id=1, caption="somebody"),
        annotation(5, 8, [[2.1, 2.1, 2.2, 2.1, 2.2, 2.2]], category_id=1, caption="nothing"),
        annotation(6, 9, crowd_runs(box_mask(CROWD)), iscrowd=1, caption="another pack"),
    ]
    images = [coco_image(n, file_name=f"{n}.png") for n in (7, 8, 9, 10)] + [coco_image(7, file_name="7.png")]
    return write_coco(tmp_path, images, annotations)


def test_coco_per_category(coco):
    dogs, person = datasets.load("coco", root=coco, annotations="a.json", query="the {category}")
    assert (dogs.id, dogs.query, dogs.targets.shape) == ("7-18", "the dog", (2, 8, 12))
    assert np.array_equal(dogs.truth, box_mask(A) | box_mask(B))
    assert np.array_equal(dogs.ignore, box_mask(CROWD))
    assert (person.query, person.targets.shape, person.ignore) == ("the person", (1, 8, 12), None)
    assert dogs.meta["boxes_xyxy"] == ((1, 2, 4, 6),) * 2


def test_coco_per_annotation(coco):
    examples = datasets.load("coco", root=coco, annotations="a.json", per="annotation")
    assert [row.query for row in examples.rows] == [
        "left dog",
        "right dog",
        "the pack",
        "somebody",
        "nothing",
        "another pack",
    ]
    assert [len(examples[i].targets) for i in (0, 1, 2, 3, 5)] == [1] * 5
    with pytest.raises(DataError, match=r"no annotation of 'nothing' in .*8\.png \(5\) encloses a pixel"):
        examples[4]
    assert np.array_equal(examples[2].truth, box_mask(CROWD))
    assert examples[5].ignore is None
    with pytest.raises(DataError, match="no text 'phrase'"):
        datasets.load("coco", root=coco, annotations="a.json", per="annotation", query_field="phrase")


def test_coco_per_image(coco):
    examples = datasets.load("coco", root=coco, annotations="a.json", per="image", query="all animals")
    assert [len(e.targets) for e in examples] == [2, 1, 0, 0]
    assert [e.ignore is None for e in examples] == [False, True, False, True]
    assert len(datasets.load("coco", root=coco, annotations="a.json", per="image", query="x", sample={"n": 2})) == 2
    with pytest.raises(DataError, match="query of its own"):
        datasets.load("coco", root=coco, annotations="a.json", per="image")


@pytest.mark.parametrize(
    ("images", "annotations", "hint"),
    [
        ([coco_image(7), coco_image(7, file_name="b.png")], [], "two files"),
        ([coco_image(7)], [annotation(1, 9, [])], "annotation 1 .*no image 9"),
        ([coco_image(7)], [annotation(1, 7, [rectangle(*A)], category_id=5)], "no category 5"),
        ([coco_image(7)], [annotation(1, 7, "polygon")], "annotation 1 of"),
        ([coco_image(7)], [annotation(1, 7, [["x"] * 6])], "no list of numbers"),
        ([coco_image(7)], [annotation(1, 7, {"counts": [3, 4], "size": [8, 12]})], "do not add up"),
        ([coco_image(7)], [annotation(1, 7, {"counts": [3]})], "size"),
        ([coco_image(7)], [annotation(1, 7, crowd_runs(box_mask(A, (12, 8))))], "8×12 pixels but its image"),
    ],
)
def test_coco_faults_are_named(tmp_path, images, annotations, hint):
    write_coco(tmp_path, images, annotations)
    with pytest.raises(DataError, match=hint):
        datasets.load("coco", root=tmp_path, annotations="a.json")[0]


@pytest.mark.parametrize(
    ("group", "key", "hint"),
    [
        ("images", "height", r"image 7 of .*a\.json has no height"),
        ("images", "width", r"image 7 of .*a\.json has no width"),
        ("images", "id", r"a\.json: entry 0 of images, counted from 0, has no id"),
        ("images", "file_name", "entry 0 of images, counted from 0, has no file_name"),
        ("annotations", "id", "entry 0 of annotations, counted from 0, has no id"),
        ("annotations", "image_id", "entry 0 of annotations, counted from 0, has no image_id"),
        ("annotations", "category_id", r"annotation 1 of .*a\.json has no category_id"),
        ("categories", "name", "entry 0 of categories, counted from 0, has no name"),
    ],
)
def test_coco_entries_that_lack_a_key_are_named(tmp_path, group, key, hint):
    write_coco(tmp_path, [coco_image(7)], [annotation(1, 7, [rectangle(*A)])])
    data = json.loads((tmp_path / "a.json").read_text())
    del data[group][0][key]
    save_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=hint):
        datasets.load("coco", root=tmp_path, annotations="a.json")
    data[group][0] = "seven"
    save_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=f"entry 0 of {group}, counted from 0, is no object"):
        datasets.load("coco", root=tmp_path, annotations="a.json")


def test_coco_files_that_are_none(coco):
    with pytest.raises(DataError, match="'annotations'"):
        datasets.load("coco", root=coco)
    with pytest.raises(DataError, match=r"b\.json"):
        datasets.load("coco", root=coco, annotations="b.json")
    with pytest.raises(DataError, match="per is"):
        datasets.load("coco", root=coco, annotations="a.json", per="categroy")
    save_json(coco / "b.json", [])
    with pytest.raises(DataError, match="no COCO JSON"):
        datasets.load("coco", root=coco, annotations="b.json")
    (coco / "images" / "7.png").unlink()
    with pytest.raises(DataError, match=r"7\.png is missing"):
        datasets.load("coco", root=coco, annotations="a.json")


def write_lines(root, *rows):
    save_image(root / "a.jpg", mode="L")
    lines = [row if isinstance(row, str) else json.dumps({"image": "a.jpg", "query": "x"} | row) for row in rows]
    (root / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_every_way_to_write_a_mask(tmp_path):
    save_mask(tmp_path / "m.png", box_mask(A))
    save_mask(tmp_path / "twice.png", box_mask(A).repeat(2, axis=0).repeat(2, axis=1))
    rle = dict(to_rle(box_mask(A)))
    same = [rle, crowd_runs(box_mask(A)), [rectangle(*A)], rectangle(*A), "m.png", "twice.png"]
    write_lines(tmp_path, *({"mask": mask} for mask in same))
    examples = datasets.load("jsonl", root=tmp_path)
    assert len(examples) == len(same)
    for example in examples:
        assert np.array_equal(example.targets, box_mask(A)[None])
        assert example.image.mode == "RGB"


def test_targets_ignore_and_tags(tmp_path):
    rle = dict(to_rle(box_mask(A)))
    rows = [
        {"masks": [rle, [rectangle(*B)]], "id": "both", "tags": {"kind": "several"}},
        "",
        {"mask": None},
        {"masks": []},
        {"mask": dict(to_rle(box_mask(A) & False))},
        {"mask": rle, "ignore": [rectangle(*B)]},
    ]
    examples = datasets.load("jsonl", root=write_lines(tmp_path, *rows), file="data.jsonl")
    assert [e.id for e in examples] == ["both", "3", "4", "5", "6"]
    assert [len(e.targets) for e in examples] == [2, 0, 0, 0, 1]
    assert examples[0].tags == {"kind": "several"}
    assert np.array_equal(examples[4].ignore, box_mask(B))
    assert examples.n_images == 1


def test_a_line_may_say_the_gold_answer(tmp_path):
    rows = [{"mask": None, "answer": "<points>[]</points>"}, {"mask": [rectangle(*A)], "reasoning": "it is left"}]
    examples = datasets.load("jsonl", root=write_lines(tmp_path, *rows))
    assert [dict(e.meta) for e in examples] == [{"completion_text": "<points>[]</points>"}, {"reasoning": "it is left"}]


def test_null_is_missing(tmp_path):
    optional = ("id", "tags", "ignore", "reasoning", "answer", "prompts")
    rows = [{"mask": None} | dict.fromkeys(optional), {"mask": None, "id": 0, "tags": {"kind": None, "part": "a"}}]
    first, second = datasets.load("jsonl", root=write_lines(tmp_path, *rows))
    assert (first.id, first.tags, first.ignore, first.meta) == ("1", {}, None, {})
    assert (second.id, second.tags) == ("0", {"part": "a"})


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("{", "line 1 .*no JSON"),
        ("[]", "no image and query"),
        ('{"image": "a.jpg", "query": 1, "mask": null}', "no image and query"),
        ({}, "mask or masks"),
        ({"mask": None, "masks": []}, "mask or masks"),
        ({"mask": None, "mark": 1}, "mark"),
        ({"masks": {}}, "masks are a list"),
        ({"mask": None, "image": "b.jpg"}, r"b\.jpg is missing"),
        ({"mask": "b.png"}, r"b\.png"),
        ({"mask": 3}, "line 1"),
        ({"mask": crowd_runs(box_mask(A, (12, 8)))}, "8×12 pixels"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path, row, hint):
    with pytest.raises(DataError, match=hint):
        datasets.load("jsonl", root=write_lines(tmp_path, row))[0]


def test_lines_of_one_id_and_no_lines(tmp_path):
    with pytest.raises(DataError, match="same id"):
        datasets.load("jsonl", root=write_lines(tmp_path, {"mask": None, "id": "2"}, {"mask": None}))
    with pytest.raises(DataError, match="no examples"):
        datasets.load("jsonl", root=write_lines(tmp_path, ""))
    with pytest.raises(DataError, match=r"none\.jsonl"):
        datasets.load("jsonl", root=tmp_path, file="none.jsonl")


@tries(50)
@given(st.data())
def test_run_lengths_of_both_kinds_are_the_mask(data):
    height, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    assert np.array_equal(decode_segmentation(crowd_runs(mask), (1, 1), "it"), mask)
    assert np.array_equal(decode_segmentation(dict(to_rle(mask)), (1, 1), "it"), mask)


BOX = [6, 1, 3, 3]  # COCO's way to write B
OUTSIDE = [13, 1, 20, 1, 20, 5]


@pytest.mark.parametrize("segmentation", [[], [[]], None, [[1, 1, 4, 4]], [OUTSIDE], {"size": [8, 12], "counts": [96]}])
def test_an_object_without_a_mask_is_never_nothing_there(tmp_path, segmentation):
    masked, boxed = annotation(1, 7, [rectangle(*A)]), annotation(2, 8, segmentation, bbox=BOX, category_id=1)
    write_coco(tmp_path, [coco_image(n, file_name=f"{n}.png") for n in (7, 8)], [masked, boxed])
    options = {"root": tmp_path, "annotations": "a.json"}
    with pytest.raises(
        DataError, match=r"1 of 2 annotations have no mask, the first is annotation 2 of 8\.png .*a\.json"
    ):
        datasets.load("coco", **options)
    dog, person = datasets.load("coco", without_mask="box", **options)
    assert "truth" not in dog.meta
    assert (person.meta["truth"], person.meta["boxes_xyxy"]) == ("box", (tuple(map(float, B)),))
    assert np.array_equal(person.truth, box_mask(B))
    assert [e.query for e in datasets.load("coco", without_mask="drop", **options)] == ["dog"]
    with pytest.raises(DataError, match="refuse, box or drop"):
        datasets.load("coco", without_mask="keep", **options)


@pytest.mark.parametrize(
    ("segmentation", "more", "hint"),
    [
        ([[1e8, 1, 4, 1, 4, 4]], {}, "far outside"),
        ([[float("nan"), 1, 4, 1, 4, 4]], {}, "far outside"),
        ({"size": [30_000, 30_000], "counts": "a"}, {}, "claims a size of 30000×30000"),
        ({"size": [8, 12], "counts": "gar bage"}, {}, "cannot be read"),
        ({"size": [8, 12], "counts": "4"}, {}, "do not add up"),
        ([], {"bbox": [1, 2, "x", 4]}, "no box of four numbers"),
        ([], {"bbox": [40, 2, 3, 4]}, "outside its image"),
        ([], {"bbox": None}, "neither a mask nor a box"),
    ],
)
def test_coco_masks_are_checked_when_the_set_is_loaded(tmp_path, segmentation, more, hint):
    write_coco(tmp_path, [coco_image(7, file_name="7.png")], [annotation(1, 7, segmentation, **more)])
    with pytest.raises(DataError, match=rf"annotation 1 of .*{hint}"):
        datasets.load("coco", root=tmp_path, annotations="a.json", without_mask="box")


def test_painted_masks_that_are_marked_as_crowds(tmp_path):
    painted = annotation(1, 7, crowd_runs(box_mask(A)), iscrowd=1)
    write_coco(tmp_path, [coco_image(7, file_name="7.png")], [painted])
    with pytest.raises(DataError, match="crowds: targets reads them"):
        datasets.load("coco", root=tmp_path, annotations="a.json")
    (example,) = datasets.load("coco", root=tmp_path, annotations="a.json", crowds="targets")
    assert np.array_equal(example.truth, box_mask(A))


def test_negatives_say_that_nothing_is_there(coco):
    options = {"root": coco, "annotations": "a.json", "negatives": True}
    found = {(e.id, e.query, len(e.targets)) for e in datasets.load("coco", **options)}
    assert {("7-18", "dog", 2), ("7-1", "person", 0), ("8-18", "dog", 0), ("10-1", "person", 0)} <= found
    assert len(found) == 7  # every image and category but the one whose only dogs are a crowd


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_read(tmp_path, encoding):
    write_coco(tmp_path, [coco_image(7, file_name="7.png")], [annotation(1, 7, [rectangle(*A)])])
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text(), encoding=encoding)
    assert len(datasets.load("coco", root=tmp_path, annotations="a.json")) == 1
    write_lines(tmp_path, {"mask": None, "query": "это"})
    (tmp_path / "data.jsonl").write_text((tmp_path / "data.jsonl").read_text(), encoding=encoding)
    assert datasets.load("jsonl", root=tmp_path)[0].query == "это"


def test_sizes_that_contradict_the_image_are_refused_before_anything_is_drawn(tmp_path):
    image = coco_image(7, file_name="7.png")
    write_coco(tmp_path, [image], [annotation(1, 7, [rectangle(*A)])])
    save_json(
        tmp_path / "a.json",
        json.loads((tmp_path / "a.json").read_text())
        | {"images": [image | {"width": 12 * 2**20, "height": 8 * 2**20}]},
    )
    with pytest.raises(DataError, match="12582912×8388608 pixels but its image"):
        datasets.load("coco", root=tmp_path, annotations="a.json")[0]


@pytest.mark.parametrize(("orientation", "size_wh"), [(3, (12, 8)), (2, (12, 8)), (6, (8, 8)), (6, (12, 8))])
def test_masks_on_stored_pixels_are_asked_for_and_named_by_the_check(tmp_path, orientation, size_wh):
    from PIL import Image, ImageOps

    from segrl.datasets.check import check

    save_image(tmp_path / "a.jpg", size_wh, orientation=orientation)
    drawn = box_mask((0, 0, 4, 3), size_wh[::-1])
    save_mask(tmp_path / "m.png", drawn)
    ways = ["m.png", [rectangle(0, 0, 4, 3)], dict(to_rle(drawn))]
    lines = [{"image": "a.jpg", "query": "x", "mask": mask} for mask in ways]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(drawn)
    stored.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(stored))
    for example in datasets.load("jsonl", root=tmp_path, pictures={"masks": "stored"}):
        assert np.array_equal(example.truth, wanted)
    if size_wh[0] != size_wh[1] and orientation == 6:
        return  # the sides tell
    for example in datasets.load("jsonl", root=tmp_path):
        assert np.array_equal(example.truth, drawn)  # as the photograph is shown, never guessed
    (found,) = check("jsonl", str(tmp_path))
    assert "1 photographs are turned by EXIF and keep their sides" in found.notes[0]
    assert not found.faults
    (found,) = check("jsonl", str(tmp_path), options={"pictures": {"masks": "stored"}})
    assert not found.notes


def test_reading_is_an_option_of_every_set_of_files(tmp_path):
    write_coco(tmp_path, [coco_image(7, file_name="7.png")], [annotation(1, 7, [rectangle(*A)])])
    options = {"root": tmp_path, "annotations": "a.json"}
    small = {"pictures": {"max_megapixels": 0.00001}}
    joined = {"sets": [{"name": "coco", "annotations": "a.json"}], "root": tmp_path}
    for examples in (
        datasets.load("coco", **options, **small),
        datasets.load("joined", **joined, **small),
        datasets.load("coco", augment={"views": 2}, **options, **small),
    ):
        with pytest.raises(DataError, match="max_megapixels"):
            examples[0]
    with pytest.raises(DataError, match="no option 'maxmegapixels'"):
        datasets.load("coco", **options, pictures={"maxmegapixels": 1})
    with pytest.raises(DataError, match="reads no picture files"):
        datasets.load("tiny", n=3, seed=0, pictures={"page": 1})
