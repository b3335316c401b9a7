"""`segrl data prompts` and `segrl data reason`: gold mask prompts, and the reasoning that goes with them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import box_mask, save_image, save_mask
from fake_server import MODEL, Reply, serving, text
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from segrl import datasets, policies
from segrl.cli.app import app
from segrl.datasets.gold import write_prompts
from segrl.datasets.write_reasoning import MIN_WORDS, agree, write_reasoning
from segrl.errors import DataError, SegrlError, ServerError
from segrl.files import make_directory, read_rows
from segrl.policies import http_client
from segrl.segmenters import load as load_segmenter
from segrl.types import ORIGINAL, MaskPrompt

HW = (40, 60)


def ring() -> np.ndarray:
    ys, xs = np.mgrid[: HW[0], : HW[1]]
    far = np.hypot(xs - 30, ys - 20)
    return (far < 16) & (far > 14)


def line() -> np.ndarray:
    mask = np.zeros(HW, dtype=bool)
    mask[np.arange(35), np.arange(35)] = True
    return mask


SHAPES = {"ring": ring(), "line": line(), "block": box_mask((5, 5, 30, 25), HW), "nothing": np.zeros(HW, dtype=bool)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mask in SHAPES.items():
        save_image(tmp_path / "set" / "images" / f"{name}.jpg", HW[::-1])
        save_mask(tmp_path / "set" / "masks" / f"{name}.png", mask)
    return tmp_path / "set"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", *arguments])


def make(folder: Path, out: Path, *more: str) -> Any:
    done = run("prompts", "folder", "--root", str(folder), "--out", str(out), "--option", "query=the shape", *more)
    assert done.exit_code == 0, done.output
    return done


def test_prompts_are_read_back_and_lie_where_they_should(folder: Path, tmp_path: Path) -> None:
    done = make(folder, tmp_path / "out", "--points", "3", "--negatives", "2")
    assert "4 examples (1 without a target), 4 images, 3 boxes, 9 points on" in done.stdout
    examples = {e.id: e for e in datasets.load("jsonl", root=tmp_path / "out")}
    assert examples.keys() == SHAPES.keys()
    for name, example in examples.items():
        assert np.array_equal(example.truth, SHAPES[name])
        assert example.query == "the shape"
        for prompt in example.meta["prompts"]:
            on = [bool(SHAPES[name][int(y), int(x)]) for x, y in prompt.points_xy]
            assert on == [label == 1 for label in prompt.labels]
            assert sum(prompt.labels) == 3
    assert examples["nothing"].meta["prompts"] == ()
    assert 0 in examples["ring"].meta["prompts"][0].labels
    assert 0 not in examples["block"].meta["prompts"][0].labels  # it fills its box
    about = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert about["dataset"] == {"name": "folder", "query": "the shape", "root": str(folder)}
    assert about["written"]["prompts"] == 3


def test_the_same_data_give_the_same_files_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(folder, tmp_path / name, "--sample", "3", "--seed", "5")
    one, two = (tmp_path / name / "data.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert len(read_rows(one)) == 3
    assert json.loads((tmp_path / "one" / "prompts.json").read_text())["dataset"]["sample"] == {"n": 3, "seed": 5}
    again = run("prompts", "folder", "--root", str(folder), "--out", str(tmp_path / "one"))
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize("part", ["", "deeper"])
def test_an_out_that_cannot_be_made_is_one_line(folder: Path, tmp_path: Path, part: str) -> None:
    make(folder, tmp_path / "made")
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / part)
    with serving(good) as fake:
        for words in (
            ("prompts", "folder", "--root", str(folder), "--option", "query=the shape"),
            ("reason", str(tmp_path / "made"), "--policy", f"openai:{MODEL}@{fake.url}"),
        ):
            done = run(*words, "--out", out)
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
            assert f"segrl: cannot make the directory {out}" in done.stderr


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SegrlError, match="cannot write to the directory"):
        make_directory(tmp_path)


class _Likes:
    """A segmenter that fills boxes, and leaves out a quarter of the box where negative points are (not) given."""

    def __init__(self, likes_negatives: bool) -> None:
        self._likes, self._box = likes_negatives, load_segmenter("box")

    def encode(self, images: Any) -> Any:
        return self._box.encode(images)

    def decode(self, embeddings: Any, prompts: Any) -> Any:
        masks = self._box.decode(embeddings, prompts)
        for per_image, own in zip(masks, prompts, strict=True):
            for mask, prompt in zip(per_image, own, strict=True):
                if (0 in prompt.labels) != self._likes:
                    mask[: mask.shape[0] // 2] = False
        return masks


@pytest.mark.parametrize("likes", [True, False])
def test_negative_points_stay_where_they_help_the_segmenter(folder: Path, tmp_path: Path, likes: bool) -> None:
    examples = datasets.load("folder", root=folder)
    written = write_prompts(examples, tmp_path / "out", segmenter=_Likes(likes))
    rows = {row["id"]: row for row in read_rows(tmp_path / "out" / "data.jsonl")}
    assert (0 in rows["ring"]["prompts"][0]["labels"]) is likes
    assert written.mean_iou is not None
    assert 0 < written.mean_iou <= 1


def test_prompts_of_a_set_are_kept(tmp_path: Path) -> None:
    (example,) = datasets.load("tiny", n=1, seed=3)
    write_prompts([example, example], tmp_path)
    back = datasets.load("jsonl", root=tmp_path)
    assert [e.id for e in back] == [example.id, f"{example.id}-2"]
    if "prompts" in example.meta:
        assert [p.box_xyxy for p in back[0].meta["prompts"]] == [p.box_xyxy for p in example.meta["prompts"]]


THOUGHT = "The request asks for the one shape here, which stands out from the plain ground around it."


def answer_of(body: dict[str, Any]) -> str:
    """The gold answer that a request for reasoning shows."""
    return str(body["messages"][-1]["content"][1]["text"]).rpartition("</think>")[2]


def good(number: int, body: dict[str, Any]) -> Reply:
    return text(f"<think>{THOUGHT}</think>{answer_of(body)}")


@pytest.fixture
def made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(http_client, "_delay_s", lambda attempt, backoff_s: 0.0)
    make(folder, tmp_path / "made")
    return tmp_path / "made"


def reason(made: Path, out: Path, fake: Any, query: str = "?retries=0&concurrency=2", **options: Any) -> Any:
    return write_reasoning(made, out, policies.load(f"openai:{MODEL}@{fake.url}{query}"), **options)


@pytest.mark.parametrize("answer_format", ["seg-r1", "json-list", "sam-r1"])
def test_reasoning_that_agrees_is_kept_and_read_back(made: Path, tmp_path: Path, answer_format: str) -> None:
    with serving(good) as fake:
        url = f"openai:{MODEL}@{fake.url}"
        done = run("reason", str(made), "--policy", url, "--out", str(tmp_path / "r"), "--answer-format", answer_format)
        assert done.exit_code == 0, done.output
        asked = len(fake.asked)
    assert "4 kept, 0 dropped (none)" in done.stdout
    assert asked == 4
    examples = datasets.load("jsonl", root=tmp_path / "r")
    assert {e.meta["reasoning"] for e in examples} == {THOUGHT}
    source = {e.id: e for e in datasets.load("jsonl", root=made)}
    for example in examples:
        assert example.image_id == source[example.id].image_id
        assert example.meta["prompts"] == source[example.id].meta["prompts"]


SHIFTED = "<bbox>[1,1,9,9]</bbox>, <points>[[4,4]]</points>, <labels>[1]</labels>"
FAULTS: dict[str, Callable[[str], Reply]] = {
    "truncated": lambda gold: text(f"<think>{THOUGHT}", "length"),
    "no_answer": lambda gold: text(f"<think>{THOUGHT}</think> I see it."),
    "bad_syntax": lambda gold: text(f"<think>{THOUGHT}</think><bbox>[1,2</bbox>"),
    "bad_values": lambda gold: text(f"<think>{THOUGHT}</think><bbox>[1,2]</bbox>"),
    "disagrees": lambda gold: text(f"<think>{THOUGHT}</think>{SHIFTED}"),
    "no_reasoning": lambda gold: text(f"<think>Here it is.</think>{gold}"),
    "coordinates": lambda gold: text(f"<think>{THOUGHT} It is at ( 12, 30).</think>{gold}"),
    "mentions_answer": lambda gold: text(f"<think>{THOUGHT} The given box says so.</think>{gold}"),
    "refused": lambda gold: Reply({"error": {"message": "not this picture"}}, 400),
}


@pytest.mark.parametrize("why", FAULTS)
def test_what_is_dropped_is_counted_by_reason(made: Path, tmp_path: Path, why: str) -> None:
    fault = FAULTS[why]
    with serving(lambda n, body: fault(answer_of(body)) if n == 1 else good(n, body)) as fake:
        done = reason(made, tmp_path / "r", fake, "?retries=0&concurrency=1")
    assert (done.kept, dict(done.dropped)) == (3, {why: 1})
    (row,) = read_rows(tmp_path / "r" / "dropped.jsonl")
    assert row["why"] == why
    assert row["detail"]
    about = json.loads((tmp_path / "r" / "reason.json").read_text())
    assert (about["kept"], about["dropped"]) == (3, {why: 1})


def test_it_goes_on_where_it_stopped(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    bad = FAULTS["no_answer"]
    with serving(lambda n, body: bad("") if n == 0 else good(n, body)) as fake:
        reason(made, out, fake)
    whole = {name: read_rows(out / name) for name in ("data.jsonl", "dropped.jsonl")}
    lines = (out / "data.jsonl").read_bytes()
    (out / "data.jsonl").write_bytes(lines[: len(lines) - 20])  # killed while it wrote the last line
    with serving(good) as fake:
        done = reason(made, out, fake)
        assert len(fake.asked) == 1
    assert {name: read_rows(out / name) for name in whole} == whole
    assert (done.kept, dict(done.dropped)) == (3, {"no_answer": 1})
    with serving(good) as fake:
        assert reason(made, out, fake).kept == 3
        assert fake.asked == []
        with pytest.raises(SegrlError, match="seed: 0 there, 1 now"):
            reason(made, out, fake, seed=1)


def test_a_server_that_fails_stops_the_run_and_loses_nothing(made: Path, tmp_path: Path) -> None:
    with serving(lambda n, body: good(n, body) if n < 4 else Reply({}, 500)) as fake:
        reason(made, tmp_path / "a", fake)
    with (
        serving(Reply({"error": {"message": "no such field"}}, 400)) as fake,
        pytest.raises(ServerError, match="no such"),
    ):
        reason(made, tmp_path / "b", fake)
    assert not read_rows(tmp_path / "b" / "dropped.jsonl")
    with serving(Reply({"error": "down"}, 503)) as fake, pytest.raises(ServerError, match="503"):
        reason(made, tmp_path / "b", fake)
    with serving(good) as fake:
        assert reason(made, tmp_path / "b", fake).kept == 4


def test_lines_that_are_no_prompts(tmp_path: Path) -> None:
    with serving(good) as fake:
        with pytest.raises(DataError, match="segrl data prompts"):
            reason(tmp_path, tmp_path / "r", fake)
        (tmp_path / "data.jsonl").write_text('{"id": "1", "image": "a.png", "query": "x", "mask": null}\n')
        with pytest.raises(DataError, match="without id and prompts"):
            reason(tmp_path, tmp_path / "r", fake)


def test_a_reasoning_is_long_enough_to_learn_from() -> None:
    assert len(THOUGHT.split()) >= MIN_WORDS


SIDES = st.integers(10, 90)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4, unique=True), st.randoms())
def test_agreement_does_not_depend_on_the_order(corners: list[tuple[int, int]], random: Any) -> None:
    gold = [MaskPrompt((x, y, x + 5, y + 5), ((x + 2, y + 2),), (1,), ORIGINAL) for x, y in corners]
    mixed = random.sample(gold, len(gold))
    assert agree(mixed, gold, (100, 100))
    assert not agree(mixed[1:], gold, (100, 100))
    assert not agree([*mixed, mixed[0]], gold, (100, 100))


def test_agreement_of_points_and_boxes() -> None:
    box, point = (10.0, 10.0, 50.0, 50.0), (20.0, 20.0)
    gold = MaskPrompt(box, (point,), (1,), ORIGINAL)
    shift = 0.02 * math.hypot(100, 100)
    assert agree([MaskPrompt((10, 10, 50, 51), (point,), (1,), ORIGINAL)], [gold], (100, 100))
    for other in (
        MaskPrompt((10, 10, 50, 60), (point,), (1,), ORIGINAL),
        MaskPrompt(box, ((20 + shift * 1.01, 20),), (1,), ORIGINAL),
        MaskPrompt(box, (point,), (0,), ORIGINAL),
        MaskPrompt(None, (point,), (1,), ORIGINAL),
        MaskPrompt(box, (), (), ORIGINAL),
    ):
        assert not agree([other], [gold], (100, 100))
