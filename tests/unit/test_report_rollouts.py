"""The rollout viewer's data, and the diagnosis on the page."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segrl.masks import box_to_mask, to_rle
from segrl.reporting import write_report
from segrl.reporting.rollouts import outside_in, viewer
from segrl.training.checkpoints import SIDE_PX, Pictures

HW = (600, 800)


def row(step: int, group: int = 0, text: str = "<think>a cup</think> <bbox>[1,2]</bbox>") -> dict:
    mask = to_rle(box_to_mask((100, 100, 300, 400), HW))
    completion = {
        "text": text,
        "status": "ok",
        "outside": False,
        "truncated": False,
        "tokens": 12,
        "prompts": [{"box_xyxy": [100, 100, 300, 400], "points_xy": [[200, 300], [0, 0]], "labels": [1, 0]}],
        "mask": mask,
        "iou": 1.0,
        "terms": {"iou": 1.0, "no_target": None},
        "reward": 1.0,
        "advantage": 0.70710678,
    }
    silent = {**completion, "status": "no_target", "prompts": [], "mask": to_rle(box_to_mask((0, 0, 1, 1), HW) & False)}
    return {
        "step": step,
        "group": group,
        "example_id": f"e{step}",
        "image_id": f"image/{step % 2}",
        "image_hw": list(HW),
        "query": "the </script> cup",
        "tags": {"kind": "size"},
        "truth": [mask],
        "completions": [completion, {**silent, "iou": 0.0, "reward": 0.0, "advantage": -0.70710678}],
    }


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    kept = Pictures(tmp_path / "pictures")
    kept.save("image/0", Image.new("RGB", (HW[1], HW[0]), (10, 200, 30)))
    return kept


def test_numbers_are_those_of_the_picture_as_shown(pictures):
    shown = viewer([row(2)], pictures)
    (group,) = shown.data["groups"]
    assert group["wh"] == [384, 288]
    good, silent = group["completions"]
    assert good["boxes"] == [[48.0, 48.0, 96.0, 144.0]]
    assert good["points"] == [[96.0, 144.0, 1], [0.0, 0.0, 0]]
    assert (good["reasoning"], good["answer"]) == ("a cup", "<bbox>[1,2]</bbox>")
    assert good["mask"] == group["truth"] == to_rle(box_to_mask((48, 48, 144, 192), (288, 384)))["counts"]
    assert (silent["mask"], silent["terms"]["no_target"], silent["advantage"]) == ("", None, -0.707)


def test_pictures_stand_once_and_missing_ones_are_null(pictures):
    shown = viewer([row(2), row(4), row(5)], pictures)
    assert len(shown.data["pictures"]) == 1
    assert [group["picture"] for group in shown.data["groups"]] == [0, 0, None]


def test_the_viewer_stays_within_its_budget(pictures):
    rows = [row(step, group) for step in range(0, 60, 2) for group in range(2)]
    whole = viewer(rows, pictures)
    assert (whole.shown, whole.logged) == (60, 60)
    budget = len(json.dumps(whole.data)) // 3
    some = viewer(rows, pictures, budget)
    assert len(json.dumps(some.data)) <= budget
    assert 10 < some.shown < 30
    steps = [group["step"] for group in some.data["groups"]]
    assert steps == sorted(steps)
    assert {0, 58} <= set(steps)
    assert viewer(rows, pictures, 1).shown == 2
    assert viewer([], pictures) is None


@given(st.lists(st.integers(), unique=True, max_size=50))
def test_outside_in_gives_every_step_once(steps):
    assert sorted(outside_in(steps)) == sorted(steps)
    assert list(outside_in(steps))[:1] == steps[:1]


def test_kept_pictures_are_small_and_kept_once(tmp_path):
    kept = Pictures(tmp_path)
    exact = Image.new("RGB", (30, 20), (1, 2, 3))
    kept.save("a/../b", exact)
    kept.save("large", Image.new("RGB", (2000, 1000)))
    kept.save("large", Image.new("RGB", (4, 4)))
    assert kept.open("a/../b").tobytes() == exact.tobytes()
    assert kept.open("large").size == (SIDE_PX, SIDE_PX // 2)
    assert kept.open("never") is None
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg", ".png"]


def write_run(path, **changed) -> None:
    healthy = {"reward": 0.5, "entropy": 0.5, "status/ok": 1.0, "completions/clipped_ratio": 0.0}
    rows = [{"step": i + 1, **healthy, **changed} for i in range(30)]
    rows[19]["held_out/giou"] = 0.625
    (path / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    logged = "".join(json.dumps(row(step)) + "\n" for step in (1, 11, 21))
    (path / "rollouts.jsonl").write_text(logged + '{"step": 31, "gro')  # being written


def test_page_of_a_run_that_goes_on(tmp_path):
    write_run(tmp_path, **{"completions/clipped_ratio": 0.4})
    check = {"passed": True, "faults": [], "rows": [
        {"answer": "gold", "n": 2, "reward": 1.0, "lead": None, "read": 1.0, "terms": {"iou": 1.0}},
        {"answer": "empty", "n": 2, "reward": 0.0, "lead": 1.0, "read": 1.0, "terms": {"iou": None}},
    ]}  # fmt: skip
    (tmp_path / "reward_check.json").write_text(json.dumps(check))
    page = write_report(tmp_path).read_text()
    data = re.search(r'<script type="application/json" id="rollout-data">(.*?)</script>', page, re.S).group(1)
    assert [group["step"] for group in json.loads(html.unescape(data))["groups"]] == [1, 11, 21]
    assert "Answers are cut off" in page
    assert "since step" in page
    assert "gold leads by" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    (finding,) = json.loads((tmp_path / "summary.json").read_text())["diagnosis"]
    assert (finding["name"], finding["last"]) == ("cut_off", None)


def test_page_of_a_healthy_run_says_so(tmp_path):
    write_run(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "None of the known faults shows" in page
    assert "greedy answers, queries 0.625" in page
    assert 'class="finding' not in page
