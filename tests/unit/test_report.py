from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segrl.cli.evaluation_tables import before_after_table
from segrl.errors import DataError
from segrl.evaluation import EvalRecord, Overlap, compare_runs, write_evaluation
from segrl.evaluation.overlap import write_overlap
from segrl.masks import box_to_mask, to_rle
from segrl.reporting import EvaluatedRun, write_report
from segrl.reporting.charts import Chart, Series, nice_ticks, show, smooth, training_charts
from segrl.reporting.evaluated_run import choose
from segrl.reporting.pictures import Picture, outline_path
from segrl.training import parse_recipe
from segrl.training.checkpoints import RunDir
from segrl.training.export import card
from segrl.types import ORIGINAL, MaskPrompt, Status

KINDS = ("colour_shape", "size", "none")


def record(index: int, *, grow: float, kind: str, status: Status = Status.OK) -> EvalRecord:
    """A disc's box, grown by `grow` pixels, on an image of 80×60; kind `none` has no target."""
    x = 10 + index % 30
    truth = box_to_mask((x, 15, x + 20, 40), (60, 80)) & (kind != "none")
    prompt = MaskPrompt(
        (x - grow, 15 - grow, x + 20 + grow, 40 + grow), ((x + 10.0, 25.0), (2.0, 2.0)), (1, 0), ORIGINAL
    )
    ok = status is Status.OK
    mask = box_to_mask(prompt.box_xyxy, (60, 80)) & ok
    overlap, union = int((mask & truth).sum()), int((mask | truth).sum())
    iou = overlap / union if union else float(status is Status.NO_TARGET)
    return EvalRecord(
        id=str(index),
        image_id=f"image/{index}",
        tags={"kind": kind},
        query=f"the <b>disc</b> {index} & others",
        text="<think>a red disc</think> <bbox>[1,2,3,4]</bbox>",
        status=status,
        reasoning="a red disc" if ok else None,
        detail="" if ok else "no numbers",
        prompts=(prompt,) if ok else (),
        mask=to_rle(mask),
        truth=to_rle(truth),
        iou=iou,
        s_measure=iou,
        intersection=overlap,
        union=union,
        target_area=int(truth.sum()),
        predicted_area=int(mask.sum()),
        tokens=40,
        seconds=0.1,
        truncated=False,
    )


def records(grow: float, *, failures: int) -> list[EvalRecord]:
    rows = []
    for index in range(30):
        kind = KINDS[index % 3]
        status = Status.NO_TARGET if kind == "none" and index % 2 else Status.OK
        rows.append(record(index, grow=grow, kind=kind, status=Status.BAD_SYNTAX if index < failures else status))
    return rows


def steps(count: int = 50) -> list[dict]:
    return [
        {
            "step": i + 1,
            "reward": 0.5 + i / 100,
            "reward_std": 0.2,
            "rewards/iou/mean": 0.4 + i / 120,
            "rewards/format/mean": 0.9,
            "giou": 0.4 + i / 120,
            "status/ok": 0.9,
            "status/bad_syntax": 0.1,
            "status/truncated": 0.0,
            "kl": i / 1000,
            "entropy": 1.5 - i / 60,
            "completions/mean_length": 45.0,
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A complete run directory."""
    run = EvaluatedRun(tmp_path_factory.mktemp("run"))
    write_evaluation({"policy": "before"}, records(8, failures=3), run.before_dir.path)
    write_evaluation({"policy": "after"}, records(2, failures=0), run.after_dir.path)
    rows = [{**row, "seconds": 1.5} for row in steps()]
    (run.path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.path / "recipe.yaml").write_text("method: grpo\npolicy: {path: tiny}\nsegmenter: {name: box}\n")
    run.save_images({f"image/{i}": Image.new("RGB", (80, 60), (90, 20 + i, 60)) for i in range(30)})
    return run.path


@pytest.fixture
def run(made, tmp_path) -> EvaluatedRun:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return EvaluatedRun(tmp_path)


def test_summary_holds_what_was_promised(run):
    write_report(run.path)
    summary = json.loads(run.summary_path.read_text())
    for side in ("before", "after"):
        assert {"giou", "ciou", "s_measure", "parse_rate"} <= set(summary[side]["metrics"])
        assert set(summary[side]["slices"]["kind"]) == set(KINDS)
    found, sides = summary["comparison"], [summary[side]["metrics"]["giou"]["value"] for side in ("before", "after")]
    assert [found["metrics"]["giou"][key] for key in "ab"] == sides
    assert found["metrics"]["giou"]["ci95"][0] > 0
    assert found == compare_runs(run.before_dir.path, run.after_dir.path)
    assert found["settings"] == {"policy": "'before' → 'after'"}
    assert (summary["seconds"], summary["seconds_of"]) == (75.0, {"training": 75.0})
    assert summary["pointing"]["after"]["box_area_ratio"] < summary["pointing"]["before"]["box_area_ratio"]


def test_page_stands_alone(run):
    page = write_report(run.path).read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<b>disc</b>" not in page
    assert "the &lt;b&gt;disc&lt;/b&gt;" in page
    assert page.count("<article") == 10  # six at random, four gains, no loss
    assert "It became better." in page


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        (None, ["30 queries, the overlap", "gIoU on examples"], ["held-out", "held out", "training images"]),
        (Overlap(30, 90, 90, 0), ["30 held-out queries", "gIoU on held-out examples"], ["training images"]),
        (
            Overlap(30, 90, 90, 12),
            ["12 of 30 examples (40%)", "30 queries (12 with training images)"],
            ["held-out", "held out"],
        ),
    ],
)
def test_held_out_is_said_only_where_it_holds(run, found, said, unsaid):
    if found is not None:
        write_overlap(found, run.overlap_path)
    page = write_report(run.path).read_text()
    recipe = parse_recipe({"method": "sft", "policy": "tiny", "dataset": "tiny"})
    for text in (page[: page.index("Recipe and terms")], card(recipe, RunDir(run.path), run.path)):
        assert not [word for word in unsaid if word in text]
    assert all(words in page for words in said)
    title = str(before_after_table(json.loads(run.summary_path.read_text()), found).title)
    assert ("held-out" in title) == (found is not None and found.is_held_out)


def test_each_picture_is_stored_once(run):
    page = write_report(run.path).read_text()
    used = set(re.findall(r'<use href="#(image-\d+)"', page))
    assert used == set(re.findall(r'<image id="(image-\d+)"', page))


def test_training_log_alone_is_enough(tmp_path):
    (tmp_path / "steps.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    page = write_report(tmp_path).read_text()
    assert "Loss" in page
    assert "Pictures" not in page
    assert "comparison" not in json.loads((tmp_path / "summary.json").read_text())


def test_no_run_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        write_report(tmp_path)


def test_a_run_of_the_older_layout_says_what_to_do(run):
    (run.path / "evaluation" / "before.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"0\.1\.0.*remove .*evaluation and start") as caught:
        write_report(run.path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"before\.jsonl"):
        RunDir(run.path).claim(parse_recipe({"method": "sft", "policy": "tiny", "dataset": "tiny"}))


def test_broken_log_names_the_file(tmp_path):
    (tmp_path / "steps.jsonl").write_text('{"step": 1}\n{"st\n')
    with pytest.raises(DataError, match=r"steps\.jsonl"):
        write_report(tmp_path)


def test_choice_is_without_repeats_and_takes_kinds_in_turn():
    groups = choose(records(8, failures=3), records(2, failures=0))
    shown = [pair.before.id for group in groups for pair in group.pairs]
    assert len(shown) == len(set(shown))
    assert {pair.before.kind for pair in groups[0].pairs} == set(KINDS)
    assert all(pair.gain > 0 for pair in groups[1].pairs)


def test_charts_leave_out_what_is_missing():
    assert [chart.title for chart in training_charts(steps())] == [
        "Reward", "Reward terms", "gIoU", "Answer status", "Length", "KL", "Entropy",
    ]  # fmt: skip
    assert training_charts([{"step": 1, "epoch": 0.1, "kl": float("nan"), "note": "text"}]) == []
    assert all(chart.svg.startswith("<svg") for chart in training_charts(steps(1)))


def test_statuses_that_never_occur_have_no_line():
    chart = next(chart for chart in training_charts(steps()) if chart.title == "Answer status")
    assert [series.name for series in chart.series] == ["bad syntax", "ok"]


def test_constant_series_can_be_drawn():
    flat = Chart("flat", "", (Series("v", ((0, 1.0), (1, 1.0), (2, 1.0))),))
    assert "nan" not in flat.svg
    assert smooth([(0, 1.0), (1, 3.0)]) == [(0, 1.0), (1, 3.0)]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_span_the_values(low, width):
    ticks = nice_ticks(low, low + width)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + width - 1e-6 * step - 1e-9
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.500"), (12.34, "12.3"), (-0.04, "-0.0400"), (2e-5, "2.0e-05"), (1234.5, "1234")],
)
def test_numbers_are_short(value, text):
    assert show(value) == text


def test_outline_of_one_pixel_is_its_four_edges():
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    assert outline_path(mask) == "M2 1H3M2 2H3M2 1V2M3 1V2"


@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))))
def test_outline_is_as_long_as_the_edges(mask):
    lengths = [int(b) - int(a) for a, b in re.findall(r"M(\d+) \d+H(\d+)", outline_path(mask))]
    lengths += [int(b) - int(a) for a, b in re.findall(r"M\d+ (\d+)V(\d+)", outline_path(mask))]
    padded = np.pad(mask, 1).astype(int)
    assert sum(lengths) == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()


def test_overlays_scale_with_the_picture():
    picture = Picture(Image.new("RGB", (40, 30)), (80, 60))
    overlay = picture.answer(record(0, grow=0, kind="size"))
    assert overlay.boxes == ((5.0, 7.5, 10.0, 12.5),)
    assert [(dot.x, dot.y, dot.positive) for dot in overlay.dots] == [(10.0, 12.5, True), (1.0, 1.0, False)]
