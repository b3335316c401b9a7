"""Hugging Face data sets, saved to disk or as parquet: any with a column map, FCoT, Seg-Zero's and VisionReasoner's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import box_mask, crowd_runs, rectangle, save_mask
from PIL import Image

from segrl import answers, datasets
from segrl.coordinates import convert
from segrl.datasets.drawing import Canvas
from segrl.errors import DataError
from segrl.images import Picture
from segrl.masks import to_rle
from segrl.types import RELATIVE_1000

A, B = (1, 1, 4, 4), (6, 1, 9, 4)
HW = (8, 12)


def picture(
    size_wh: tuple[int, int] = (12, 8), mode: str = "RGB", orientation: int = 1, shade: int = 40
) -> dict[str, Any]:
    """A JPEG as the `datasets` library stores it."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.new("RGB", size_wh, (shade, 255 - shade, 90)).convert(mode).save(file, "JPEG", exif=exif)
    return {"bytes": file.getvalue(), "path": None}


def mask_file(mask: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets as hf

    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(rows: list[dict[str, Any]], images: tuple[str, ...] = ("image",)) -> Any:
    import datasets as hf

    made = hf.Dataset.from_list(rows)
    for name in images:
        made = made.cast_column(name, hf.Image())
    return made


def as_dict(made: Any, place: Path) -> Path:
    import datasets as hf

    hf.DatasetDict({"train": made}).save_to_disk(place)
    return place


def as_one(made: Any, place: Path) -> Path:
    made.save_to_disk(place)
    return place


def as_clone(made: Any, place: Path) -> Path:
    """The folder that cloning the data set's page gives."""
    (place / "data").mkdir(parents=True)
    made.to_parquet(place / "data" / "train-00000-of-00001.parquet")
    return place


def as_file(made: Any, place: Path) -> Path:
    made.to_parquet(place.with_suffix(".parquet"))
    return place.with_suffix(".parquet")


# The columns of Ricky06662/ReasonSeg_val, from its card.
REASONSEG = [
    {"image": picture(shade=n), "text": f"question {n}", "mask": (box_mask(A) if n else box_mask(A) & False).tolist()}
    | {"image_id": f"q{n}", "ann_id": f"q{n}", "img_height": 8, "img_width": 12}
    for n in range(3)
]


@pytest.mark.parametrize("save", [as_dict, as_one, as_clone, as_file])
def test_a_column_map_reads_a_set_however_it_is_stored(tmp_path: Path, save: Callable[[Any, Path], Path]) -> None:
    root = save(table(REASONSEG), tmp_path / "set")
    columns = {"query": "text", "id": "image_id"}
    examples = datasets.load("hf", root=str(root), columns=columns)
    assert [(e.id, e.query, e.targets.shape) for e in examples] == [
        ("q0", "question 0", (0, 8, 12)),
        ("q1", "question 1", (1, 8, 12)),
        ("q2", "question 2", (1, 8, 12)),
    ]
    assert np.array_equal(examples[1].truth, box_mask(A))
    assert len({e.image_id for e in examples}) == 3
    drawn = datasets.load("hf", root=str(root), columns=columns, sample={"n": 2, "seed": 3})
    again = datasets.load("hf", root=str(root), columns=columns, sample={"n": 2, "seed": 3})
    assert [e.id for e in drawn] == [e.id for e in again]
    assert len(drawn) == 2


def test_odd_pictures_and_every_kind_of_target(tmp_path: Path) -> None:
    rows = [
        {"image": picture(mode="L"), "query": "grey", "masks": [json.dumps(dict(to_rle(box_mask(A))))]},
        {"image": picture(mode="CMYK"), "query": "ink", "masks": []},
        {"image": picture((8, 12), orientation=6), "query": "turned", "masks": [json.dumps([rectangle(*A)]), "[]"]},
    ]
    grey, ink, turned = datasets.load("hf", root=as_one(table(rows), tmp_path / "a"))
    assert grey.image.mode == ink.image.mode == turned.image.mode == "RGB"
    assert [len(e.targets) for e in (grey, ink, turned)] == [1, 0, 1]
    assert turned.image.size == (12, 8)
    rows = [{"image": picture(), "mask": mask_file(box_mask(B)), "ignore": mask_file(box_mask(A)), "kind": "far"}]
    (example,) = datasets.load("hf", root=as_one(table(rows, ("image", "mask", "ignore")), tmp_path / "b"), query="it")
    assert (example.query, example.tags) == ("it", {"kind": "far"})
    assert np.array_equal(example.truth, box_mask(B))
    assert np.array_equal(example.ignore, box_mask(A))
    rows = [{"image": picture(), "query": "box", "bbox": [1.0, 1.0, 4.0, 4.0], "reasoning": "it is left"}]
    (example,) = datasets.load("hf", root=as_one(table(rows), tmp_path / "c"), columns={"boxes": "bbox"})
    assert np.array_equal(example.truth, box_mask(A))
    assert example.meta == {"boxes_xyxy": ((1, 1, 4, 4),), "truth": "box", "reasoning": "it is left"}


def test_null_is_missing(tmp_path: Path) -> None:
    rows = [
        {"id": name, "image": picture(), "query": query, "masks": []} for name, query in (("a", "it"), (None, None))
    ]
    examples = datasets.load("hf", root=as_one(table(rows), tmp_path / "a"))
    assert examples[0].query == "it"
    with pytest.raises(DataError, match=r"row 1 of .* has no query"):
        examples[1]
    assert [e.id for e in datasets.load("hf", root=tmp_path / "a", query="it")] == ["a", "1"]


def test_a_rotated_picture_turns_the_mask_that_was_drawn_on_it(tmp_path: Path) -> None:
    stored = np.zeros((12, 8), dtype=bool)
    stored[0, :] = True
    rows = [{"image": picture((8, 12), orientation=6), "query": "x", "mask": mask_file(stored)}]
    (example,) = datasets.load("hf", root=as_one(table(rows, ("image", "mask")), tmp_path / "a"))
    assert example.truth.shape == HW
    assert example.truth[:, -1].all()
    assert example.truth.sum() == 8


def test_every_way_to_write_a_mask(tmp_path: Path) -> None:
    save_mask(tmp_path / "m.png", box_mask(A))
    ways = [dict(to_rle(box_mask(A))), crowd_runs(box_mask(A)), [rectangle(*A)], rectangle(*A), "m.png"]
    ways += [
        box_mask(A).tolist(),
        box_mask(A).astype(int).tolist(),
        mask_file(box_mask(A)),
        json.dumps([rectangle(*A)]),
    ]
    ways += [{"bytes": None, "path": "m.png"}]
    for written in ways:
        assert np.array_equal(
            Canvas(Picture(Image.new("RGB", HW[::-1]), 1, "a picture")).written(written, tmp_path, "it"), box_mask(A)
        ), written
    for written, hint in [
        ([[True, False], [True]], "differ in length"),
        ("{", "no JSON"),
        ("gone.png", "gone"),
        ({"bytes": "text", "path": None}, "bytes are none"),
        (3, "it"),
    ]:
        with pytest.raises(DataError, match=hint):
            Canvas(Picture(Image.new("RGB", HW[::-1]), 1, "a picture")).written(written, tmp_path, "it")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"columns": {"querry": "text"}}, "did you mean 'query'"),
        ({"columns": {"query": "txt"}}, "no column 'txt'"),
        ({}, "name the columns with image and query"),
        ({"columns": {"query": "text"}, "split": "val"}, "no split 'val'; it has train"),
        ({"columns": {"query": "text", "mask": "mask", "boxes": "img_width"}}, "has mask and boxes"),
        ({"columns": {"query": "text"}, "sample": {"n": 9}}, "there are 3 examples"),
        ({"columns": {"query": "text", "image": "text"}}, "question 0"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, options: dict[str, Any], hint: str) -> None:
    root = as_dict(table(REASONSEG), tmp_path / "set")
    with pytest.raises(DataError, match=hint) as raised:
        datasets.load("hf", root=root, **options)[0]
    assert "\n" not in str(raised.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, hint in [
        ("nowhere", "there is no nowhere"),
        (tmp_path / "empty", "cannot read the split"),
        ("a/b", "a/b"),
    ]:
        with pytest.raises(DataError, match=hint) as raised:
            datasets.load("hf", root=str(root))
        assert "\n" not in str(raised.value)


FCOT_ANSWER = "<bbox>[2,1,8,6]</bbox>, <points>[[3,3],[6,4],[9,6]]</points>, <labels>[1,1,0]</labels>"


def fcot_row(**other: Any) -> dict[str, Any]:
    """The columns of geshang/FCoT, from its card; the texts in the form of Seg-R1's SFT script."""
    row = {"image": picture(), "thinking": "<think> a bat in the leaves </think>", "solution": FCOT_ANSWER}
    return row | {"problem": "Identify and segment all the primary objects in the image."} | other


def test_fcot(tmp_path: Path) -> None:
    rows = [fcot_row(), fcot_row(thinking="plain", solution=FCOT_ANSWER.replace(", <", "\n<"))]
    first, second = datasets.load("fcot", root=as_clone(table(rows), tmp_path / "FCoT"))
    assert first.query == "Identify and segment all the primary objects in the image."
    assert (first.meta["reasoning"], second.meta["reasoning"]) == ("a bat in the leaves", "plain")
    (prompt,) = first.meta["prompts"]
    assert (prompt.box_xyxy, prompt.points_xy, prompt.labels) == ((2, 1, 8, 6), ((3, 3), (6, 4), (9, 6)), (1, 1, 0))
    assert np.array_equal(first.truth, box_mask((2, 1, 8, 6)))
    written = answers.get("seg-r1").render([convert(prompt, RELATIVE_1000, (12, 8))], first.meta["reasoning"])
    assert written.startswith("<think>a bat in the leaves</think> <bbox>[167,125,667,750]</bbox>")


def test_fcot_numbers_about_another_size(tmp_path: Path) -> None:
    answer = "<bbox>[128,96,512,576]</bbox>, <points>[[192,288]]</points>, <labels>[1]</labels>"
    root = as_one(table([fcot_row(solution=answer)]), tmp_path / "a")
    with pytest.raises(DataError, match="about another size"):
        datasets.load("fcot", root=root)[0]
    (example,) = datasets.load("fcot", root=root, numbers_wh=[768, 768])
    assert example.meta["prompts"][0].box_xyxy == (2, 1, 8, 6)


def test_fcot_rows_that_cannot_be_read(tmp_path: Path) -> None:
    rows = [fcot_row(), fcot_row(solution="<bbox>[1,2]</bbox>"), fcot_row(), fcot_row(solution="none")]
    root = as_one(table(rows), tmp_path / "a")
    with pytest.raises(DataError, match=r"row 1 .* one of 2; drop_unreadable"):
        datasets.load("fcot", root=root)
    left = datasets.load("fcot", root=root, drop_unreadable=True)
    assert [e.id for e in left] == ["0", "2"]
    assert left.dropped == [1, 3]


def squashed_row(solution: str, **other: Any) -> dict[str, Any]:
    """The columns of Seg-Zero's sets, from their cards; a picture of 12×8 squashed to 840×840."""
    row = {"id": "refcocog_7", "problem": "the bat", "solution": solution, "image": picture((840, 840))}
    return row | {"img_height": 8, "img_width": 12} | other


def test_seg_zero(tmp_path: Path) -> None:
    # The last pixels of the box (2, 1, 8, 6) are 7 and 5; one of the original's is 70×105 here.
    solution = "<box>(140,105),(490,525)</box><points>(210,315),(420,420)</points>"
    root = as_dict(table([squashed_row(solution)]), tmp_path / "refCOCOg_2k_840")
    (example,) = datasets.load("seg-zero", root=root)
    (prompt,) = example.meta["prompts"]
    assert (example.id, example.query, example.image.size) == ("refcocog_7", "the bat", (840, 840))
    assert (prompt.box_xyxy, prompt.points_xy, prompt.labels) == (
        (140, 105, 560, 630),
        ((210, 315), (420, 420)),
        (1, 1),
    )
    (example,) = datasets.load("seg-zero", root=root, restore=True)
    assert example.image.size == (12, 8)
    assert example.meta["prompts"][0].box_xyxy == pytest.approx((2, 1, 8, 6))
    assert np.array_equal(example.truth, box_mask((2, 1, 8, 6)))


def test_visionreasoner(tmp_path: Path) -> None:
    several = [
        {"bbox_2d": [140, 105, 490, 525], "point_2d": [210, 315]},
        {"bbox_2d": [700, 0, 770, 0], "point_2d": [735, 0]},
    ]
    rows = [squashed_row(json.dumps(several), problem="'bat' and 'leaf'"), squashed_row("[]")]
    both, none = datasets.load("visionreasoner", root=as_clone(table(rows), tmp_path / "a"), restore=True)
    assert both.query == "'bat' and 'leaf'"
    assert [p.box_xyxy for p in both.meta["prompts"]] == [pytest.approx((2, 1, 8, 6)), pytest.approx((10, 0, 12, 1))]
    assert both.targets.shape == (2, 8, 12)
    assert (len(none.targets), none.meta["prompts"]) == (0, ())


@pytest.mark.parametrize("name", ["seg-zero", "visionreasoner"])
@pytest.mark.parametrize(
    "solution", ["", "{", "[1]", '[{"bbox_2d": [1, 2, 3], "point_2d": [1, 2]}]', "<box>(1,2)</box>"]
)
def test_solutions_that_cannot_be_read_are_named(tmp_path: Path, name: str, solution: str) -> None:
    examples = datasets.load(name, root=as_one(table([squashed_row(solution)]), tmp_path / "a"))
    with pytest.raises(DataError, match=r"row 0 .* cannot be read"):
        examples[0]


def test_a_set_without_a_sample_of_its_own_is_sampled_too() -> None:
    whole = datasets.load("tiny", n=9, seed=4)
    part = datasets.load("tiny", n=9, seed=4, sample={"n": 3, "seed": 1})
    ids = [example.id for example in whole]
    assert [e.id for e in part] == [e.id for e in part[:]] == sorted((e.id for e in part), key=ids.index)
    assert len(part) == 3
    assert len(datasets.load("tiny", n=9, seed=4, sample=None)) == 9
    with pytest.raises(DataError, match="there are 9"):
        datasets.load("tiny", n=9, seed=4, sample={"n": 10})
