"""What annotators corrected, read back: LabelMe, YOLO and Label Studio; our own exports among them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from dataset_files import box_mask, save_image, save_json
from PIL import Image

from segrl import brush_rle, datasets, exports
from segrl.errors import DataError
from segrl.exports.base import Style
from segrl.masks import mask_to_polygons, png_bytes
from segrl.result import Result
from segrl.types import Answer, MaskPrompt, Status

A, B = (1, 1, 5, 4), (6, 2, 10, 7)
WH = (12, 8)


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def ring(box: tuple[int, int, int, int]) -> list[list[float]]:
    """The middles of a box's corner pixels, which LabelMe fills with its outline."""
    x1, y1, x2, y2 = box
    return [[x1 + 0.5, y1 + 0.5], [x2 - 0.5, y1 + 0.5], [x2 - 0.5, y2 - 0.5], [x1 + 0.5, y2 - 0.5]]


def labelme_file(root: Path, name: str, *shapes: dict, **more: object) -> Path:
    save_image(root / f"{name}.jpg", WH)
    about = {"version": "5.5.0", "flags": {}, "imagePath": f"{name}.jpg", "imageData": None}
    return save_json(root / f"{name}.json", about | {"imageHeight": 8, "imageWidth": 12, "shapes": shapes} | more)


def test_labelme(tmp_path):
    parts = [shape("dog", ring(A), group_id=1), shape("dog", ring(B), group_id=1)]
    labelme_file(tmp_path, "a", *parts, shape("dog", ring(B)), shape("cat", ring(B)))
    labelme_file(tmp_path / "sub", "b")
    dogs, cat = datasets.load("labelme", root=tmp_path, query="the {category}")
    assert (dogs.id, dogs.query, len(dogs.targets), cat.query) == ("a-0", "the dog", 2, "the cat")
    assert np.array_equal(dogs.targets[0], box_mask(A) | box_mask(B))
    assert np.array_equal(cat.truth, box_mask(B))
    nothing = datasets.load("labelme", root=tmp_path, negatives=True)
    assert [(e.id, len(e.targets)) for e in nothing[2:]] == [("sub/b-0", 0), ("sub/b-1", 0)]


def test_labelme_masks_and_circles(tmp_path):
    painted = base64.b64encode(png_bytes(np.ones((3, 4), bool))).decode()
    labelme_file(
        tmp_path,
        "a",
        shape("mask", [[1, 1], [4, 3]], "mask", mask=painted),
        shape("edge", [[10, 6], [13, 8]], "mask", mask=painted),
        shape("disc", [[6, 4], [8, 4]], "circle"),
    )
    mask, edge, disc = datasets.load("labelme", root=tmp_path)
    assert np.array_equal(mask.truth, box_mask(A))
    assert np.array_equal(edge.truth, box_mask((10, 6, 12, 8)))
    assert disc.truth.sum() == 12  # the pixels whose middles lie within two of the corner (6, 4)


@pytest.mark.parametrize(
    ("shapes", "more", "hint"),
    [
        ([shape("dog", [[1, 1], [5, 5]], "rectangle")], {}, "1 of 1 annotations have no mask"),
        ([shape("dog", [[1, 1]], "point")], {}, "1 of 1 annotations have no mask"),
        ([shape("dog", [[1e8, 1], [5, 5], [1, 5]])], {}, r"shape 0 of .*a\.json has a corner at \(1e\+08, 1\)"),
        ([shape("dog", [[1, 1, 1]])], {}, r"list of \[x, y\]"),
        ([shape("dog", ["ab", "cd", "ef"])], {}, r"list of \[x, y\]"),
        ([{"label": "dog"}], {}, "shape 0 of .* has no points"),
        (["dog"], {}, "shape 0 of .* is no object"),
        ([], {"imageHeight": -3}, "size of 12×-3"),
        ([], {"imagePath": None}, "has no imagePath"),
        ([], {"shapes": {}}, "shapes are no list"),
    ],
)
def test_labelme_faults_are_named(tmp_path, shapes, more, hint):
    labelme_file(tmp_path, "a", *shapes, **more)
    with pytest.raises(DataError, match=hint):
        datasets.load("labelme", root=tmp_path, negatives=True)


def test_labelme_rectangles_as_truth(tmp_path):
    labelme_file(tmp_path, "a", shape("dog", [[10, 7], [6, 2]], "rectangle"))
    (example,) = datasets.load("labelme", root=tmp_path, without_mask="box")
    assert np.array_equal(example.truth, box_mask(B))
    assert example.meta == {"boxes_xyxy": ((6, 2, 10, 7),), "truth": "box"}


def yolo_set(root: Path, lines: str, about: str = "names: [dog, cat]\n") -> Path:
    for name in ("a", "b"):
        save_image(root / "images" / f"{name}.jpg", WH)
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(lines)
    (root / "data.yaml").write_text(about)
    return root


def yolo_line(place: object, box: tuple[int, int, int, int]) -> str:
    x1, y1, x2, y2 = box
    ends = [(x1, y1), (x2 - 1, y1), (x2 - 1, y2 - 1), (x1, y2 - 1)]
    return " ".join([str(place), *(f"{(x + 0.25) / 12:.6f} {(y + 0.25) / 8:.6f}" for x, y in ends)]) + "\n"


@pytest.mark.parametrize(
    "about",
    [
        "names: [dog, cat]\n",
        "names: {0: dog, 1: cat}\ntrain: images\nval: images\n",
        "path: .\ntrain: [images]\nnames: [dog, cat]\n",
        "path: /nowhere/else\ntrain: list.txt\nnames: {'0': dog, '1': cat}\n",
    ],
)
def test_yolo(tmp_path, about):
    yolo_set(tmp_path, yolo_line(0, A) + "\n" + yolo_line("1.0", B), about)
    (tmp_path / "list.txt").write_text("images/a.jpg\n\nimages/b.jpg\n")
    dog, cat = datasets.load("yolo", root=tmp_path)
    assert (dog.id, dog.query, cat.query) == ("images/a-0", "dog", "cat")
    assert np.array_equal(dog.truth, box_mask(A))
    assert np.array_equal(cat.truth, box_mask(B))
    assert [(e.query, len(e.targets)) for e in datasets.load("yolo", root=tmp_path, negatives=True)[2:]] == [
        ("dog", 0),
        ("cat", 0),
    ]


@pytest.mark.parametrize(
    ("lines", "about", "hint"),
    [
        ("0 0.5 0.5 0.2 0.2\n", "names: [dog]", "1 of 1 annotations have no mask"),
        ("2 0.5 0.5 0.2 0.2 0.1 0.1\n", "names: [dog]", r"line 1 of .*a\.txt is no class of 0 to 0"),
        ("-1 0.5 0.5 0.2 0.2 0.1 0.1\n", "names: [dog]", "no class"),
        ("0 0.5 0.5 0.2 x 0.1 0.1\n", "names: [dog]", "no class of 0 to 0 with numbers"),
        ("0 0.5 0.5 0.2 0.2 0.1\n", "names: [dog]", "it has 5"),
        ("0 0.5 0.5 0.2 1e9 0.1 0.1\n", "names: [dog]", r"line 1 of .*far outside"),
        ("0 0.5 nan 0.2 0.2 0.1 0.1\n", "names: [dog]", "far outside"),
        ("", "names: [dog]\nval: images\n", "has no split 'train'; it has val"),
        ("", "names: [dog]\ntrain: elsewhere\n", "no folder and no list"),
        ("", "nc: 1\n", "names no classes"),
        ("", f"names: [dog]\ntrain: {'x' * 5000}\n", "File name too long"),
        ("", "- dog\n", "names no classes"),
        ("", "names: [dog]\n", "holds no examples"),
    ],
)
def test_yolo_faults_are_named(tmp_path, lines, about, hint):
    with pytest.raises(DataError, match=hint):
        datasets.load("yolo", root=yolo_set(tmp_path, lines, about))


def test_yolo_boxes_as_truth(tmp_path):
    (example,) = datasets.load("yolo", root=yolo_set(tmp_path, "0 0.5 0.5 0.5 0.5\n"), without_mask="box")
    assert np.array_equal(example.truth, box_mask((3, 2, 9, 6)))
    assert example.meta["truth"] == "box"


def region(kind: str, label: str, **value: object) -> dict:
    sizes = {"original_width": 12, "original_height": 8, "image_rotation": 0}
    return {"type": kind, "id": f"{kind}-{label}", "value": {kind: [label]} | value} | sizes


def percent(ring: list[float]) -> list[list[float]]:
    return [[100 * x / 12, 100 * y / 8] for x, y in zip(ring[::2], ring[1::2], strict=True)]


REGIONS = [
    region("brushlabels", "dog", format="rle", rle=brush_rle.encode(box_mask(A))),
    region("polygonlabels", "cat", points=percent(mask_to_polygons(box_mask(B))[0])),
    region("ellipselabels", "sun", x=50, y=50, radiusX=100 / 6, radiusY=25, rotation=0),
    {"type": "choices", "id": "c", "value": {"choices": ["good"]}},
    region("keypointlabels", "click", x=1, y=1, width=1),
]


def task(*regions: dict, image: str = "/data/upload/1/0a1b2c3d-a.jpg", **more: object) -> dict:
    return {"id": 5, "data": {"image": image, "note": "x"}, "annotations": [{"result": regions} | more]}


def studio(root: Path, *tasks: object) -> Path:
    save_image(root / "images" / "a.jpg", WH)
    save_json(root / "export.json", list(tasks))
    return root


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-a.jpg",
        "/data/local-files/?d=work/photos/a.jpg",
        "s3://bucket/a.jpg",
        "http://h/x/a.jpg?v=1",
    ],
)
def test_label_studio(tmp_path, image):
    dog, cat, sun = datasets.load("label-studio", root=studio(tmp_path, task(*REGIONS, image=image)))
    assert (dog.id, dog.query, cat.query) == ("5-0", "dog", "cat")
    assert np.array_equal(dog.truth, box_mask(A))
    assert np.array_equal(cat.truth, box_mask(B))
    assert sun.truth.sum() == 12
    assert sun.truth[4, 6]


def test_label_studio_takes_the_annotation_that_counts(tmp_path):
    old, new, marked = (region("brushlabels", name, format="rle", rle=REGIONS[0]["value"]["rle"]) for name in "onm")
    annotations = [
        {"result": [old], "updated_at": "2026-01-01T00:00:00Z"},
        {"result": [new], "updated_at": "2026-02-01T00:00:00Z"},
        {"result": [marked], "updated_at": "2026-03-01T00:00:00Z", "was_cancelled": True},
    ]
    two = {"data": {"image": "a.jpg"}, "annotations": annotations}
    assert [e.query for e in datasets.load("label-studio", root=studio(tmp_path, two))] == ["n"]
    annotations.append({"result": [marked], "ground_truth": True})
    assert [e.query for e in datasets.load("label-studio", root=studio(tmp_path, two))] == ["m"]


def test_label_studio_rectangles(tmp_path):
    upright = region("rectanglelabels", "dog", x=50, y=25, width=100 / 3, height=62.5, rotation=0)
    turned = region("rectanglelabels", "cat", x=500 / 6, y=25, width=62.5 * 8 / 12, height=400 / 8, rotation=90)
    with pytest.raises(DataError, match="2 of 2 annotations have no mask"):
        datasets.load("label-studio", root=studio(tmp_path, task(upright, turned)))
    dog, cat = datasets.load("label-studio", root=tmp_path, without_mask="box")
    assert np.array_equal(dog.truth, box_mask(B))
    assert np.array_equal(cat.truth, box_mask(B))
    assert dog.meta["truth"] == cat.meta["truth"] == "box"


@pytest.mark.parametrize(
    ("tasks", "hint"),
    [
        ([{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}], "no annotated task"),
        ([task(region("brushlabels", "dog", rle=[1, 2, 3]))], "cut short"),
        ([task(region("brushlabels", "dog", rle="text"))], "no list of bytes"),
        ([task(region("brushlabels", "dog", rle=10**11))], "no list of bytes"),
        ([task(region("brushlabels", "dog", rle=[1, 256]))], "no list of bytes"),
        ([task(region("brushlabels", "dog", rle=brush_rle.encode(np.ones((30, 40), bool))))], "4800 bytes"),
        ([task(region("polygonlabels", "dog", points=[[1e9, 0], [1, 1], [0, 1]]))], "far outside"),
        ([task(region("polygonlabels", "dog", points=3))], "no values of a polygon"),
        ([task(REGIONS[0] | {"image_rotation": 90})], "turned by 90"),
        ([task(REGIONS[0] | {"original_width": None})], "no original_width"),
        ([task(REGIONS[0] | {"value": {"rle": [0]}})], "has no label"),
        ([task(REGIONS[0], image="b.jpg")], r"b\.jpg is missing"),
        ([task(REGIONS[0], image="no picture")], "names 0 images"),
        ([{"image": "a.jpg"}], "task 0 .* has no data"),
        (["x"], "task 0 .* is no object"),
    ],
)
def test_label_studio_faults_are_named(tmp_path, tasks, hint):
    with pytest.raises(DataError, match=hint):
        datasets.load("label-studio", root=studio(tmp_path, *tasks))[0]


@pytest.mark.parametrize("name", ["coco", "labelme", "yolo", "label-studio"])
def test_what_we_export_is_read_back_pixel_for_pixel(tmp_path, name):
    noise = np.random.default_rng(0).random((2, 40, 67)) > 0.6
    photograph = save_image(tmp_path / "photos" / "a.jpg", (67, 40))
    with Image.open(photograph) as image:
        found = [
            Result(image.copy(), query, "…", Answer(Status.OK, (MaskPrompt((1, 1, 9, 9)),)), masks)
            for query, masks in (("the dog", noise), ("the cat", noise[:1]))
        ]
    export = exports.get(name)(tmp_path / "out", ("the dog", "the cat"), Style(exact_polygons=True))
    record = exports.record(str(photograph), found, file_name="a.jpg", name="a")
    export.add(record)
    export.finish([record])
    out, photos = tmp_path / "out", str(tmp_path / "photos")
    where = {
        "coco": {"root": out, "annotations": "coco.json", "images": photos},
        "labelme": {"root": out / "labelme"},
        "yolo": {"root": out / "yolo"},
        "label-studio": {"root": out / "label-studio", "file": "tasks.json", "images": photos},
    }
    if name == "label-studio":
        accept_predictions(out / "label-studio" / "tasks.json")
    dog, cat = datasets.load(name, **where[name])
    assert (dog.query, cat.query) == ("the dog", "the cat")
    if name in ("coco", "labelme"):  # the others have no place for objects of several parts
        assert np.array_equal(dog.targets, noise)
    assert np.array_equal(dog.truth, noise.any(axis=0))
    assert np.array_equal(cat.truth, noise[0])


def accept_predictions(path: Path) -> None:
    """What Label Studio exports once an annotator has submitted every draft as it is."""
    tasks = json.loads(path.read_text(encoding="utf-8"))
    save_json(path, [task | {"annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks])


def test_a_file_of_pixels_in_a_labelme_mask_has_a_limit(tmp_path):
    file = io.BytesIO()
    Image.new("1", (3000, 3000)).save(file, "PNG")
    labelme_file(tmp_path, "a", shape("x", [[0, 0], [9, 9]], "mask", mask=base64.b64encode(file.getvalue()).decode()))
    with pytest.raises(DataError, match="9 megapixels"):
        datasets.load("labelme", root=tmp_path)[0]
    assert json.loads((tmp_path / "a.json").read_text())["shapes"]
