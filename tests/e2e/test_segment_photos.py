"""segrl segment as a user runs it: killed and gone on with, in several processes, over many images."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from scripted import ScriptedPolicy

from segrl import datasets, loading, pipeline, segmenters
from segrl.folder_job import Plan, find_jobs, segment_photos
from segrl.jobs import Processes

QUICK = {"policy": "tiny-scenes", "segmenter": "box", "max_new_tokens": 8, "device": "cpu"}
"""Answers that are cut off after eight tokens: as fast as a real policy gets, and the same every time."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, example in enumerate(datasets.load("tiny", n=8, seed=0)):
        example.image.save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def at_one_go(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What an uninterrupted run of one process answered."""
    out = tmp_path_factory.mktemp("one")
    run(photos, out)
    return answers(out)


def answers(out: Path) -> list[str]:
    """Every line of the journal, in whatever order the images were finished."""
    return sorted((out / "results.jsonl").read_text().splitlines())


def run(photos: Path, out: Path, **options):
    jobs = find_jobs([str(photos)], ["the red ring"]).jobs
    return segment_photos(jobs, Plan(out, ("rle", "png"), QUICK, 1), **options)


def test_a_killed_run_is_gone_on_with(photos: Path, at_one_go: list[str], tmp_path: Path) -> None:
    arguments = ["segment", photos, "--query", "the red ring", "--out", tmp_path, "--format", "rle,png"]
    options = ["--policy", "tiny-scenes", "--segmenter", "box", "--max-new-tokens", "8", "--device", "cpu"]
    code = "from segrl.cli import main; main()"
    killed = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), *options, "--batch-size", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    journal, begun = tmp_path / "results.jsonl", time.monotonic()
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert killed.poll() is None, killed.communicate()[1].decode()
        assert time.monotonic() - begun < 300
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = journal.read_text()
    summary = run(photos, tmp_path)
    assert summary.skipped == before.count("\n") >= 2
    assert (summary.new + summary.skipped, summary.broken) == (8, [])
    assert journal.read_text().startswith(before[: before.rfind("\n") + 1])
    assert answers(tmp_path) == at_one_go


def test_processes_share_the_work_and_one_that_dies_takes_only_its_own(
    photos: Path, at_one_go: list[str], tmp_path: Path
) -> None:
    ended: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not ended:
            ended.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(ended[0], signal.SIGKILL)

    summary = run(photos, tmp_path, executor=Processes(2), on_image=kill_one)
    assert summary.new + len(summary.broken) == 8
    assert len(summary.broken) <= 1
    assert all("ended with status -9" in problem and str(photos) in problem for problem in summary.broken)
    assert not multiprocessing.active_children()
    again = run(photos, tmp_path)
    assert (again.skipped, again.broken) == (summary.new, [])
    assert answers(tmp_path) == at_one_go


def test_a_model_that_cannot_be_loaded_ends_all_processes(photos: Path, tmp_path: Path) -> None:
    code = "from segrl.cli import main; main()"
    arguments = ["segment", photos, "--query", "it", "--out", tmp_path, "--policy", "/nowhere", "--processes", "2"]
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("segrl: there is no model directory /nowhere")


@pytest.mark.parametrize("n", [160, pytest.param(1000, marks=pytest.mark.long)])
def test_memory_stays_flat(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept images would take 0.9 MB each."""
    scripted = ScriptedPolicy({}, default="<think>…</think> <bbox>[100,100,800,700]</bbox>")
    model = pipeline.Pipeline(scripted, loading.make_text_to_masks(scripted, segmenters.load("box")))
    monkeypatch.setattr(loading, "load", lambda **_: model)
    photo = tmp_path / "photos" / "0.jpg"
    photo.parent.mkdir()
    Image.effect_noise((640, 480), 40).convert("RGB").save(photo)
    for i in range(1, n):
        (photo.parent / f"{i}.jpg").hardlink_to(photo)
    resident: list[int] = []
    jobs = find_jobs([str(photo.parent)], ["it"]).jobs
    plan = Plan(tmp_path / "out", ("coco", "png", "yolo", "labelme", "overlay"), {}, 8)
    summary = segment_photos(jobs, plan, on_image=lambda done, total: resident.append(_resident_bytes()))
    assert (summary.new, summary.broken) == (n, [])
    early = n // 2
    grown = max(resident[early:]) - max(resident[:early])
    assert grown < (n - early) * 100_000, f"{grown / 1e6:.1f} MB"
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]) == n


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
