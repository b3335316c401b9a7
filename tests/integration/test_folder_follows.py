"""What a folder of masks follows: pictures that are replaced, moved or deleted, queries, formats, corrections."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import yaml
from folder_runs import fixed_answers, save, segment
from PIL import Image

from segrl import exports
from segrl.errors import DataError, SegrlError
from segrl.folder_job import Plan, find_jobs, segment_photos
from segrl.folder_job.records import LOCK
from segrl.jobs import locked
from segrl.masks import read_mask

EVERY = ("--format", ",".join(exports.names()))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate(("a/x.png", "b/x.png", "y.jpg")):
        save(tmp_path / "photos" / name, (i * 50, 9, 9))
    return tmp_path / "photos"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return fixed_answers(monkeypatch)


def coco(out: Path) -> dict[str, dict]:
    """The images of coco.json by file name."""
    return {image["file_name"]: image for image in json.loads((out / "coco.json").read_text())["images"]}


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_a_replaced_picture_is_asked_again(photos: Path, asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(photos, "-q", "box", "-q", "ghost", "--out", out, *EVERY)
    (photos / "b" / "x.png").touch()  # another time, the same content
    assert "3 images done before" in segment(photos, "-q", "box", "--out", out, *EVERY).stdout
    save(photos / "a" / "x.png", (200, 9, 9), (60, 30))
    ran = segment(photos, "-q", "box", "--out", out, *EVERY)
    assert ran.exit_code == 0, ran.output
    assert (len(asked), asked[6:]) == (8, ["box", "ghost"])
    assert (coco(out)["a/x.png"]["width"], coco(out)["b/x.png"]["width"]) == (60, 40)
    assert read_mask(out / "png" / "1-box" / "a" / "x.png").shape == (30, 60)
    assert (out / "yolo" / "images" / "a" / "x.png").read_bytes() == (photos / "a" / "x.png").read_bytes()
    (photos / "a" / "x.png").write_bytes(b"no image")
    assert segment(photos, "-q", "box", "--out", out, *EVERY).exit_code == 1
    assert "a/x.png" not in coco(out)
    assert not (out / "png" / "1-box" / "a").exists()


def test_a_moved_tree_is_neither_asked_nor_listed_twice(photos: Path, asked: list[str], tmp_path: Path) -> None:
    out = photos / "out"
    segment(photos, "-q", "box", "--out", out, *EVERY)
    before = files(out)
    moved = tmp_path / "elsewhere" / "pictures"
    moved.parent.mkdir()
    photos.rename(moved)
    ran = segment(moved, "-q", "box", "--out", moved / "out", *EVERY)
    assert ran.exit_code == 0, ran.output
    assert len(asked) == 3
    after = files(moved / "out")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"results.jsonl", "rle.jsonl"}  # which hold paths
    shutil.move(moved / "a" / "x.png", moved / "renamed.png")
    shutil.copy(moved / "y.jpg", moved / "z.jpg")  # a copy is a picture of its own
    segment(moved, "-q", "box", "--out", moved / "out", *EVERY)
    assert len(asked) == 4
    assert sorted(coco(moved / "out")) == ["b/x.png", "renamed.png", "y.jpg", "z.jpg"]
    assert all((moved / name).exists() for name in coco(moved / "out"))
    assert sorted(p.stem for p in (moved / "out" / "labelme").rglob("*.json")) == ["renamed", "x", "y", "z"]
    labelme = moved / "out" / "labelme" / "renamed.json"
    assert (labelme.parent / json.loads(labelme.read_text())["imagePath"]).exists()


def test_names_that_a_suffix_sets_apart_stay_what_they_are(photos: Path, asked: list[str], tmp_path: Path) -> None:
    save(photos / "y.png")
    segment(photos, "-q", "box", "--out", tmp_path / "out", *EVERY)
    assert sorted(coco(tmp_path / "out")) == ["a/x.png", "b/x.png", "y.jpg", "y.png"]
    assert sorted(p.name for p in (tmp_path / "out" / "yolo" / "labels").glob("*")) == ["a", "b", "y-2.txt", "y.txt"]


def test_a_folder_keeps_each_of_its_formats_complete(photos: Path, asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(photos, "-q", "box", "--out", out, "--format", "coco,yolo,labelme")
    corrected = out / "labelme" / "y.json"
    content = json.loads(corrected.read_text())
    content["shapes"][0]["points"][0] = [1.5, 1.5]
    corrected.write_text(json.dumps(content))
    (out / "yolo" / "labels" / "y.txt").write_text("0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    segment(photos, "-q", "box of the other kind", "--out", out, "--format", "rle")
    names = [one["name"] for one in json.loads((out / "coco.json").read_text())["categories"]]
    assert (
        names == yaml.safe_load((out / "yolo" / "data.yaml").read_text())["names"] == ["box", "box of the other kind"]
    )
    shapes = json.loads(corrected.read_text())["shapes"]
    assert [(shape["label"], shape["points"][0]) for shape in shapes] == [
        ("box", [1.5, 1.5]),
        ("box of the other kind", shapes[1]["points"][0]),
    ]
    lines = (out / "yolo" / "labels" / "y.txt").read_text().splitlines()
    assert lines[0] == "0 0.1 0.1 0.2 0.1 0.2 0.2"
    assert [line.split()[0] for line in lines] == ["0", "1"]


def test_what_is_gone_and_what_was_mistyped_is_pruned(photos: Path, asked: list[str], tmp_path: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    segment(photos, "-q", "bx ghost", "-q", "box", "--out", out, *EVERY)
    (photos / "a" / "x.png").unlink()
    segment(photos, "-q", "box", "--out", out, *EVERY)
    assert len(coco(out)) == 3  # nothing leaves unless it is asked for
    ran = segment(photos, "-q", "box", "--out", out, "--prune")
    assert ran.exit_code == 0, ran.output
    assert "removed: 1 image, queries 'bx ghost'" in ran.stderr
    assert len(asked) == 6
    segment(photos, "-q", "box", "--out", fresh, *EVERY)
    kept, new = files(out), files(fresh)
    for name in ("results.jsonl", ".lock"):
        del kept[name], new[name]
    assert kept == new
    (photos / "y.jpg").unlink()
    save(photos / "y.jpg", (1, 2, 3))
    again = segment(photos, "-q", "ghost", "--out", out, "--prune")
    assert again.exit_code == 0, again.output
    assert [one["name"] for one in json.loads((out / "coco.json").read_text())["categories"]] == ["ghost"]
    assert sorted(coco(out)) == ["b/x.png", "y.jpg"]


def test_a_failed_command_claims_nothing(photos: Path, asked: list[str], tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("segrl.loading.load", _no_model)
        assert segment(photos, "-q", "bxo", "--max-new-tokens", "7", "--out", out).exit_code == 2
    assert [path.name for path in out.iterdir()] == [LOCK]
    assert segment(photos, "-q", "box", "--out", out).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr("segrl.loading.load", _no_model)
        assert segment(photos, "-q", "mistyped", "--out", out).exit_code == 2
    assert json.loads((out / "segment.json").read_text())["queries"] == ["box"]


def _no_model(**options: object) -> None:
    raise SegrlError("there is no model directory /nowhere")


def test_two_runs_on_one_folder_are_noticed(photos: Path, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=_hold, args=(str(tmp_path / "out" / LOCK), there))
    other.start()
    here.recv()
    ran = segment(photos, "-q", "box", "--out", tmp_path / "out")
    other.kill()
    other.join()
    assert (ran.exit_code, asked) == (2, [])
    assert "is being written by another process" in ran.stderr.splitlines()[-1]
    assert segment(photos, "-q", "box", "--out", tmp_path / "out").exit_code == 0


def _hold(path: str, pipe) -> None:
    with locked(Path(path), "taken"):
        pipe.send("held")
        pipe.recv()


def test_a_name_as_long_as_a_file_system_takes(photos: Path, asked: list[str], tmp_path: Path) -> None:
    for length in (250, 251, 255):
        save(photos / ("n" * (length - 4) + ".png"))
    save(photos / ("ж" * 125 + ".png"))
    ran = segment(photos, "-q", "box", "--out", tmp_path / "out", *EVERY)
    assert ran.exit_code == 0, ran.output
    assert all((photos / name).exists() for name in coco(tmp_path / "out"))
    assert len(list((tmp_path / "out" / "png").rglob("*.png"))) == 7


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "JPEG2000"])
def test_kinds_are_read_alike_by_command_and_python(kind: str, photos: Path, asked, tmp_path: Path) -> None:
    suffix = {"JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")
    if suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow has no {kind}")
    Image.new("RGB", (64, 32), (5, 99, 5)).save(photos / f"z{suffix}")
    ran = segment(photos, "-q", "box", "--out", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    assert (coco(tmp_path / "out")[f"z{suffix}"]["width"], len(asked)) == (64, 4)


def test_small_objects_and_later_pictures_are_left_out(photos: Path, asked: list[str], tmp_path: Path) -> None:
    save(photos / "c.png", size=(400, 200))
    ran = segment(photos, "-q", "box", "--out", tmp_path / "out", "--min-area", "201", "--limit", "3")
    assert (ran.exit_code, len(asked)) == (0, 3)
    annotations = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    assert [one["area"] for one in annotations] == [20_000]
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    said = [row["answers"][0]["repairs"] for row in rows]
    assert said == [["1 of 1 objects have fewer than 201 pixels: left out"]] * 2 + [[]]
    refused = segment(photos, "-q", "box", "--out", tmp_path / "out")
    assert "min_area: 201 there, None now" in refused.stderr


def test_one_picture_through_a_pipe(photos: Path, asked: list[str], tmp_path: Path) -> None:
    data = (photos / "y.jpg").read_bytes()
    for arguments in ((), ("--format", "png")):
        ran = segment("-", "-q", "box", *arguments, stdin=data)
        (tmp_path / "m.png").write_bytes(ran.stdout_bytes)
        assert read_mask(tmp_path / "m.png").sum() == 200
    (tmp_path / "c.png").write_bytes(segment("-", "-q", "box", "--format", "cutout", stdin=data).stdout_bytes)
    with Image.open(tmp_path / "c.png") as cut:
        assert (cut.mode, cut.size) == ("RGBA", (40, 20))
    assert "nothing was found" in segment("-", "-q", "ghost", stdin=data).stderr
    for wrong, message in (
        (("-", "-q", "box", "--out", tmp_path), "--out cannot be used with -"),
        (("-", "-q", "box", "--review", "5"), "--review cannot be used with -"),
        (("-", photos, "-q", "box"), "takes one image"),
        (("-", "-q", "box", "--format", "coco"), "takes one of png, cutout, overlay"),
        ((photos, "-q", "box"), "--out DIR"),
    ):
        ran = segment(*wrong, stdin=data)
        assert (ran.exit_code, message in ran.stderr) == (2, True), ran.stderr
    assert "no image on standard input" in segment("-", "-q", "box", stdin=b"").stderr


def test_a_page_and_a_limit_of_pixels_are_chosen(photos: Path, asked: list[str], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    frames[0].save(photos / "frames.gif", save_all=True, append_images=frames[1:])
    out = tmp_path / "out"
    ran = segment(photos / "frames.gif", "-q", "box", "--page", "1", "--format", "cutout,yolo", "--out", out)
    assert ran.exit_code == 0, ran.output
    for made in (out / "cutout" / "1-box" / "frames.png", out / "yolo" / "images" / "frames.png"):
        with Image.open(made) as image:
            assert image.convert("RGB").getpixel((20, 10)) == (0, 0, 255)
    assert "page: 1 there, None now" in segment(photos, "-q", "box", "--out", out).stderr
    ran = segment(photos, "-q", "box", "--max-megapixels", "0.0005", "--out", tmp_path / "small")
    assert (ran.exit_code, "raise max_megapixels" in ran.stderr) == (1, True)


def boxes_coco(photos: Path) -> Path:
    path = photos / "boxes.json"
    images = [{"id": 7, "file_name": "y.jpg"}, {"id": 8, "file_name": "a/x.png"}]
    rows = [(7, [10, 5, 20, 10]), (8, [0, 0, 4, 4]), (8, [30, 10, 100, 100])]
    annotations = [{"id": i, "image_id": image, "category_id": 3, "bbox": box} for i, (image, box) in enumerate(rows)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "thing"}]}
    path.write_text(json.dumps(content))
    return path


def boxes_yolo(photos: Path) -> Path:
    (photos / "labels" / "a").mkdir(parents=True)
    (photos / "labels" / "y.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (photos / "labels" / "a" / "x.txt").write_text("0 0.05 0.1 0.1 0.2 0.93\n0 0.875 0.75 0.25 0.5\n")
    (photos / "data.yaml").write_text("names: [thing]\n")
    return photos / "data.yaml"


def boxes_lines(photos: Path) -> Path:
    rows = [
        {"image": "y.jpg", "query": "thing", "prompts": [{"box_xyxy": [10, 5, 30, 15]}]},
        {"image": "a/x.png", "query": "thing", "prompts": [{"box_xyxy": [0, 0, 4, 4]}, {"box_xyxy": [30, 10, 40, 20]}]},
    ]
    (photos / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return photos / "p.jsonl"


@pytest.mark.parametrize("write", [boxes_coco, boxes_yolo, boxes_lines])
def test_masks_of_boxes_in_a_file(write, photos: Path, asked: list[str], tmp_path: Path) -> None:
    prompts = write(photos)
    out = tmp_path / "out"
    command = (photos, "--prompts", prompts, "--segmenter", "box", "--out", out)
    ran = segment(*command)
    assert (ran.exit_code, asked) == (0, []), ran.output
    content = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/x.png", "y.jpg"]
    assert [one["name"] for one in content["categories"]] == ["thing"]
    assert [one["area"] for one in content["annotations"]] == [16, 100, 200]
    assert "2 images done before" in segment(*command).stdout
    prompts.write_text(prompts.read_text() + " \n")
    assert "choose another --out" in segment(*command).stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "takes COCO's .json"),
        ("p.json", "{}", "cannot read the prompts"),
        ("p.json", '{"images": [], "annotations": [], "categories": []}', "for none of the 3 images"),
        ("p.jsonl", '{"image": "y.jpg", "query": "x", "prompts": [{}]}', "line 1"),
        ("p.jsonl", '{"image": "y.jpg", "query": "x", "prompts": [{"box_xyxy": [4, 4, 1, 1]}]}', "not a box"),
        ("p.yaml", "names: [", "cannot read"),
        ("p.yaml", "names: [x]", "no labels"),
        ("none.json", None, "cannot read the prompts"),
    ],
)
def test_prompts_that_cannot_be_used(name, content, message, photos: Path, tmp_path: Path) -> None:
    if content is not None:
        (photos / name).write_text(content)
    ran = segment(photos, "--prompts", photos / name, "--segmenter", "box", "--out", tmp_path / "out")
    assert (ran.exit_code, message in ran.stderr, "Traceback" in ran.output) == (2, True, False), ran.stderr


def test_a_journal_of_something_else_is_named(photos: Path, asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(photos, "-q", "box", "--out", out)
    jobs, plan = find_jobs([str(photos)], ["box"]).jobs, Plan(out, ("coco",))
    for line in ("[1]\n", '{"image": 3}\n', "{\n"):
        whole = (out / "results.jsonl").read_text()
        (out / "results.jsonl").write_text(whole + line)
        with pytest.raises(DataError, match="no record"):
            segment_photos(jobs, plan)
        (out / "results.jsonl").write_text(whole)
