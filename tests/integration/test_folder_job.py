"""segrl segment: what it reads, what it skips, what it survives."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from folder_runs import fixed_answers, save, segment
from typer.testing import CliRunner

from segrl import datasets, exports
from segrl.cli.app import app
from segrl.cli.segment_view import MOST_QUERIES
from segrl.errors import DataError
from segrl.folder_job import find_jobs
from segrl.folder_job.records import Names
from segrl.jobs.progress import Estimate, counted
from segrl.masks import read_mask
from segrl.text import duration


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(("a/x.png", "b/x.png", "y.jpg")):
        save(tmp_path / "photos" / name, (i * 50, 9, 9))
    return tmp_path / "photos"


@pytest.fixture
def asked(monkeypatch):
    """The queries that the policy was asked, one for each image."""
    return fixed_answers(monkeypatch)


def test_a_folder_is_answered_once(photos, asked):
    out = photos / "out"
    (photos / "notes.txt").write_text("no picture")
    command = (photos, "--query", "box", "--query", "ghost", "--out", out, "--overlay")
    result = segment(*command)
    assert result.exit_code == 0, result.output
    assert "3/3 images" in result.stderr
    assert "1 .txt" in result.stderr
    assert sorted(asked) == ["box"] * 3 + ["ghost"] * 3
    mask = read_mask(out / "png" / "1-box" / "b" / "x.png")
    assert mask.shape == (20, 40)
    assert mask.sum() == 200
    assert len(list((out / "overlay").rglob("*.jpg"))) == 6
    whole = (out / "coco.json").read_bytes()
    again = segment(*command, "--format", "coco,yolo")
    assert "3 images done before" in again.stdout
    assert len(asked) == 6
    assert len(list((out / "yolo" / "labels").rglob("*.txt"))) == 3
    assert (out / "coco.json").read_bytes() == whole
    refused = segment(*command, "--segmenter", "box")
    assert (refused.exit_code, "another --out" in refused.stderr) == (2, True)


def test_it_goes_on_after_a_kill_and_with_new_queries(photos, asked, tmp_path):
    out = tmp_path / "out"
    segment(photos, "--query", "box", "--out", out, "--format", "rle")
    journal, complete = out / "results.jsonl", (out / "rle.jsonl").read_text()
    text = journal.read_text()
    journal.write_text(text[: -len(text.splitlines()[-1]) // 2])
    segment(photos, "--query", "box", "--out", out, "--format", "rle")
    assert len(asked) == 4
    assert (out / "rle.jsonl").read_text() == complete
    segment(photos, "--query", "ghost", "--query", "box", "--out", out, "--format", "rle,yolo")
    assert asked[4:] == ["ghost"] * 3
    rows = [json.loads(line) for line in (out / "rle.jsonl").read_text().splitlines()]
    assert [(row["query"], len(row["masks"])) for row in rows] == [("box", 1), ("ghost", 0)] * 3
    assert (out / "yolo" / "labels" / "y.txt").read_text().startswith("0 ")


def test_files_that_lack_a_query_of_another_run_are_written_again(photos, asked, tmp_path):
    out, both, formats = tmp_path / "out", ("--query", "ghost", "--query", "box"), ("--format", "yolo,labelme")
    segment(photos, "--query", "ghost", "--out", out, *formats)
    segment(photos, *both, "--out", out)
    segment(photos / "y.jpg", *both, "--out", out, *formats)
    segment(photos, *both, "--out", out, *formats)
    assert len(asked) == 6
    for name in ("a/x", "b/x", "y"):
        assert (out / "yolo" / "labels" / f"{name}.txt").read_text().startswith("1 ")
        corrected = out / "labelme" / f"{name}.json"
        assert [shape["label"] for shape in json.loads(corrected.read_text())["shapes"]] == ["box"]
    corrected.write_text("by hand")
    segment(photos, *both, "--out", out, "--format", "yolo,labelme,png", "--overlay")
    assert corrected.read_text() == "by hand"


def test_broken_images_stop_nothing(photos, asked, tmp_path):
    (photos / "a" / "c.jpg").write_bytes(b"no image")
    whole = (photos / "y.jpg").read_bytes()
    (photos / "z.jpg").write_bytes(whole[: len(whole) // 2])
    result = segment(photos, "--query", "box", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "2 images could not be processed" in result.stderr
    assert all(name in result.stderr for name in ("c.jpg", "z.jpg"))
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 3
    (photos / "a" / "c.jpg").write_bytes(whole)
    (photos / "z.jpg").unlink()
    repaired = segment(photos, "--query", "box", "--out", tmp_path / "out")
    assert (repaired.exit_code, len(asked)) == (0, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="a name may be any bytes on Linux alone")
def test_names_that_are_no_utf8_go_through(photos, asked, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    (photos / "y.jpg").rename(photos / f"{odd}.jpg")
    (photos / "a").rename(photos / odd)
    (photos / f"{odd}.png").write_bytes(b"no image")
    out, formats = tmp_path / odd, ("--format", ",".join(exports.names()))
    for _ in range(2):
        result = segment(photos, "--query", "box", "--out", out, *formats)
        assert isinstance(result.exception, SystemExit), result.exception
        assert (result.exit_code, len(asked)) == (1, 3)
        assert r"caf\udce9.png" in result.stderr
    for file in (f"labels/{odd}.txt", f"labels/{odd}/x.txt"):
        assert (out / "yolo" / file).read_text().startswith("0 ")
    assert read_mask(out / "png" / "1-box" / odd / "x.png").sum() == 200
    found = [image["file_name"] for image in json.loads((out / "coco.json").read_text())["images"]]
    assert sorted(found) == ["b/x.png", f"{odd}.jpg", f"{odd}/x.png"]
    lines = datasets.load("jsonl", root=out, file="rle.jsonl")
    assert [example.targets.sum() for example in lines] == [200] * 3


def test_batches_reach_over_images(photos, asked, tmp_path):
    one = segment(photos, "--query", "box", "--query", "ghost", "--out", tmp_path / "one", "--batch-size", "1")
    four = segment(photos, "--query", "box", "--query", "ghost", "--out", tmp_path / "four", "--batch-size", "4")
    assert one.exit_code == four.exit_code == 0
    assert (tmp_path / "one" / "coco.json").read_bytes() == (tmp_path / "four" / "coco.json").read_bytes()


def test_what_can_be_named(photos):
    (photos / "t.csv").write_text("image,query\na/x.png,the cat\na/x.png,the dog\n../photos/y.jpg,\n")
    (photos / "t.jsonl").write_text(json.dumps({"image": "b/x.png", "query": "the cat"}) + "\n")
    (photos / "u.csv").write_text('\ufeffimage;query\ny.jpg;"left, then right"\n', encoding="utf-8")
    found = find_jobs([str(photos / "t.csv"), str(photos / "t.jsonl")], ["the sky"]).jobs
    assert [job.queries for job in found] == [("the cat", "the dog", "the sky"), ("the sky",), ("the cat", "the sky")]
    assert find_jobs([str(photos / "u.csv")], []).jobs[0].queries == ("left, then right",)
    both = find_jobs([str(photos / "*.jpg"), str(photos)], ["q"])
    assert [job.file_name for job in both.jobs] == ["y.jpg", "a/x.png", "b/x.png"]
    assert both.passed_over == {".csv": 2, ".jsonl": 1}
    assert [job.file_name for job in find_jobs([str(photos / "**" / "*.png")], ["q"]).jobs] == ["a/x.png", "b/x.png"]


@pytest.mark.parametrize(
    ("source", "queries", "message"),
    [
        ("nowhere.jpg", ["q"], "no file or folder"),
        ("*.gif", ["q"], "fits no image"),
        ("empty", ["q"], "holds no image"),
        ("y.jpg", [], "no query for"),
        ("y.jpg", [" "], "a query is empty"),
        ("bare.csv", ["q"], "columns image and query"),
        ("broken.jsonl", ["q"], "cannot read the table"),
        ("none.csv", ["q"], "no rows"),
    ],
)
def test_mistakes_in_what_is_named(photos, source, queries, message):
    (photos / "empty").mkdir()
    (photos / "bare.csv").write_text("picture\ny.jpg\n")
    (photos / "broken.jsonl").write_text("{")
    (photos / "none.csv").write_text("image,query\n")
    with pytest.raises(DataError, match=message):
        find_jobs([str(photos / source)], queries)


def test_pictures_of_one_name_stay_apart(photos, asked, tmp_path):
    out = tmp_path / "out"
    segment(photos / "a" / "x.png", photos / "b" / "x.png", "--query", "box", "--out", out)
    made = sorted((out / "png" / "1-box").rglob("*.png"))
    assert [path.relative_to(out / "png" / "1-box").as_posix() for path in made] == ["a/x.png", "b/x.png"]
    names = [image["file_name"] for image in json.loads((out / "coco.json").read_text())["images"]]
    assert names == ["a/x.png", "b/x.png"]
    assert np.all([read_mask(path).any() for path in made])


def test_names_stay_inside_and_apart():
    names = Names()
    assert names.take("../../etc/x.jpg", Path("/a/etc/x.jpg")) == ("etc/x.jpg", "etc/x")
    assert names.take("etc/X.png", Path("/a/etc/X.png")) == ("etc/X.png", "etc/X-2")
    assert names.take("etc/x.jpg", Path("/b/c/etc/x.jpg")) == ("c/etc/x.jpg", "etc/x-3")
    long = "é" * 125 + ".jpg"  # 254 bytes, all that a file system takes
    assert names.take(long, Path("/a") / long) == (long, "é" * 100)
    assert names.take(f"b/{long}", Path("/a/b") / long) == (f"b/{long}", "b/" + "é" * 100)
    assert names.take(long, Path("/c") / long) == (f"c/{long}", "é" * 100 + "-2")


@pytest.mark.parametrize(
    "wrong", [("--format", "cocoo"), ("--batch-size", "0"), ("--processes", "many"), ("--answer-format", "nothing")]
)
def test_wrong_options_end_in_one_line_and_write_nothing(photos, tmp_path, wrong):
    result = segment(photos, "--query", "box", "--out", tmp_path / "out", *wrong)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("segrl: ")
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_the_estimate_leaves_loading_out_and_counts_down():
    estimate = Estimate(100.0)
    assert estimate.left(130.0) is None
    estimate.update(1, 11, 160.0)
    assert estimate.left(160.0) == 600.0
    estimate.update(3, 11, 164.0)
    assert estimate.left(164.0) == 16.0
    assert estimate.left(170.0) == 10.0
    assert estimate.left(200.0) == 0.0
    estimate.update(11, 11, 180.0)
    assert estimate.left(180.0) == 0.0


def test_many_queries_are_summed_up(photos, asked, tmp_path):
    n = MOST_QUERIES + 5
    (tmp_path / "t.csv").write_text("image,query\n" + "".join(f"photos/y.jpg,box {i}\n" for i in range(n)))
    result = segment(tmp_path / "t.csv", "--out", tmp_path / "out", "--format", "rle")
    assert result.exit_code == 0, result.output
    assert f"box {MOST_QUERIES - 1} " in result.stdout
    assert f"box {MOST_QUERIES} " not in result.stdout
    total = next(line for line in result.stdout.splitlines() if f"all {n}" in line)
    assert [int(cell) for cell in total.split("│")[2:-1]] == [n, n, n, 0, 0, 0]


def test_words_for_numbers():
    assert [duration(s) for s in (0, 0.4, 42, 150, 8000)] == ["0 s", "1 s", "42 s", "2.5 min", "2 h 13 min"]
    assert [counted(n, noun) for n, noun in ((1, "image"), (2, "query"), (0, "image"))] == [
        "1 image",
        "2 queries",
        "0 images",
    ]


def test_prompts_are_shown_as_they_are_sent():
    sent = CliRunner().invoke(app, ["prompts", "show", "--query", "the red ring"])
    assert sent.exit_code == 0, sent.output
    assert "Identify and segment the red ring" in sent.stdout
    assert "<|" in sent.stdout
    assert "seg-r1, image resized to 112×112" in sent.stderr
    plain = CliRunner().invoke(
        app, ["prompts", "show", "--policy", "Ricky06662/VisionReasoner-7B", "--plain", "-q", "x"]
    )
    assert '"x"' in plain.stdout
    assert "840×840" in plain.stderr
    wrong = CliRunner().invoke(app, ["prompts", "show", "--answer-format", "seg-r2"])
    assert (wrong.exit_code, "seg-r1" in wrong.stderr) == (2, True)
