"""A disk that fills, is read-only or goes away: one line, and the next run mends everything."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from eval_samples import command_words, write_examples
from fake_server import MODEL, Reply, serving, text
from folder_runs import fixed_answers, segment
from PIL import Image
from typer.testing import CliRunner

from segrl import datasets
from segrl.cli.app import app
from segrl.datasets.gold import write_prompts
from segrl.errors import SegrlError
from segrl.evaluation import EvalDir
from segrl.files import append_rows, read_rows, write_atomically, write_bytes, write_image
from segrl.policies import PolicySettings, write_settings
from segrl.tiny.model import Shape, save
from segrl.training import parse_recipe, train

COMMAND = ("-q", "box", "-q", "ghost", "--format", "coco,yolo,rle,png,cutout,labelme", "--overlay")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs that do not compress: 30 KB each, and as much again for each picture that is made of one."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    ran = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False)
    if ran.returncode:
        pytest.skip(f"no disk can be mounted here: {ran.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def fails_in_one_line(ran, *words: str) -> None:
    assert ran.exit_code == 2, ran.output
    assert "Traceback" not in ran.output
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("segrl: cannot ")
    assert any(word in last for word in words), last


@pytest.mark.skipif(os.name != "posix", reason="mounts are Linux's")
def test_a_disk_that_fills_is_mended_by_the_next_run(photos: Path, disk: Path, tmp_path: Path, monkeypatch) -> None:
    fixed_answers(monkeypatch)
    segment(photos, *COMMAND, "--out", tmp_path / "w" / "out")
    for size in range(64, 1024, 96):  # it fills at ever later moments
        ran = segment(photos, *COMMAND, "--out", disk / "out")
        if ran.exit_code == 0:
            break
        fails_in_one_line(ran, "No space left on device")
        for picture in (disk / "out").rglob("*.*g"):  # png and jpg
            with Image.open(picture) as image:
                image.load()
        remount(disk, f"size={size + 96}k")
    assert ran.exit_code == 0
    assert size > 200
    assert files(disk / "out") == files(tmp_path / "w" / "out")


def until_it_fits(disk: Path, begin: Callable[[], Any], sizes_kib: Iterable[int], *words: str) -> int:
    """Begins again on a disk that was enlarged, until the work is done; how often it was full before."""
    for full, size in enumerate(sizes_kib):
        remount(disk, f"size={size}k")
        ran = begin()
        if ran.exit_code == 0:
            return full
        assert (ran.exit_code, "Traceback" in ran.output) == (2, False), ran.output
        last = ran.stderr.splitlines()[-1]
        assert last.startswith("segrl: ")
        assert any(word in last for word in words), last
    raise AssertionError(ran.output)


def without_times(value: Any) -> Any:
    """JSON values without seconds, dates and what depends on them."""
    if isinstance(value, dict):
        times = ("seconds", "step_time", "tokens_per_second", "begun", "ended", "time")
        return {key: without_times(one) for key, one in value.items() if not key.startswith(times)}
    return [without_times(one) for one in value] if isinstance(value, list) else value


FULL = ("No space left", "could not be written")


@pytest.mark.skipif(os.name != "posix", reason="mounts are Linux's")
def test_an_evaluation_on_a_disk_that_fills(disk: Path, tmp_path: Path) -> None:
    examples = write_examples(tmp_path, 40)
    begin = partial(CliRunner().invoke, app)
    assert begin(command_words(examples, tmp_path / "whole")).exit_code == 0
    words = command_words(examples, disk / "out")
    assert until_it_fits(disk, partial(begin, words), range(8, 4096, 64), *FULL) >= 4
    whole, filled = EvalDir(tmp_path / "whole"), EvalDir(disk / "out")
    assert filled.metrics.read_bytes() == whole.metrics.read_bytes()
    assert without_times(read_rows(filled.records)) == without_times(read_rows(whole.records))
    assert filled.report.exists()
    assert {one.name for one in filled.path.iterdir()} == {one.name for one in whole.path.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="mounts are Linux's")
def test_reasoning_on_a_disk_that_fills(disk: Path, tmp_path: Path) -> None:
    write_prompts(datasets.load("tiny", n=60, seed=0), tmp_path / "made")
    with serving(gold_answer) as fake:
        policy = f"openai:{MODEL}@{fake.url}?retries=0&concurrency=2"
        command = ["data", "reason", str(tmp_path / "made"), "--policy", policy, "--out"]
        begin = partial(CliRunner().invoke, app)
        (disk.parent / "w").mkdir()
        assert begin([*command, str(disk.parent / "w" / "out")]).exit_code == 0
        begin = partial(begin, [*command, str(disk / "out")])
        assert until_it_fits(disk, begin, range(4, 1024, 4), *FULL) >= 4
    assert files(disk / "out") == files(disk.parent / "w" / "out")


def gold_answer(number: int, body: dict[str, Any]) -> Reply:
    """The gold answer that a request shows; of every third line no answer."""
    gold = str(body["messages"][-1]["content"][1]["text"]).rpartition("</think>")[2]
    thought = (
        "<think>The request asks for the one shape here, which stands out from the plain ground around it.</think>"
    )
    return text(f"{thought}{gold}" if sum(gold.encode()) % 3 else "I cannot say.")


def trained(recipe: dict[str, Any], out: Path) -> SimpleNamespace:
    """What a command would end with; in this process, so that a traceback ends the test."""
    try:
        train(parse_recipe(recipe), out, say=lambda line: None, progress=False)
    except SegrlError as error:
        return SimpleNamespace(exit_code=2, output="", stderr=f"segrl: {error}")
    return SimpleNamespace(exit_code=0, output="", stderr="")


@pytest.mark.skipif(os.name != "posix", reason="mounts are Linux's")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed
def test_training_on_a_disk_that_fills(disk: Path, tmp_path: Path) -> None:
    shape = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)
    save(tmp_path / "policy", shape)
    write_settings(tmp_path / "policy", PolicySettings("seg-r1", "resized", (112, 112)))
    trainer = {"gradient_checkpointing": False, "per_device_train_batch_size": 2, "max_steps": 3, "save_steps": 1}
    trainer |= {"learning_rate": 1e-3, "bf16": False}
    data = {"name": "tiny", "n": 6, "seed": 3}
    recipe = {"method": "sft", "policy": str(tmp_path / "policy"), "dataset": data, "trainer": trainer}
    assert trained(recipe, tmp_path / "whole").exit_code == 0
    held_kib = sum(one.stat().st_size for one in (tmp_path / "whole").rglob("*") if one.is_file()) // 1024
    sizes = range(held_kib // 10, 4 * held_kib, held_kib // 6)
    assert until_it_fits(disk, partial(trained, recipe, disk / "out"), sizes, *FULL) >= 4
    whole, filled = tmp_path / "whole", disk / "out"
    for name in ("model.safetensors", "config.json", "segrl.json", "tokenizer.json"):
        assert (filled / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    assert without_times(read_rows(filled / "steps.jsonl")) == without_times(read_rows(whole / "steps.jsonl"))


@pytest.mark.skipif(os.name != "posix", reason="mounts are Linux's")
def test_a_read_only_disk_and_one_that_goes_away(photos: Path, disk: Path, tmp_path: Path, monkeypatch) -> None:
    fixed_answers(monkeypatch)
    remount(disk, "size=4m")
    (disk / "out").mkdir()
    remount(disk, "ro")
    fails_in_one_line(segment(photos, *COMMAND, "--out", disk / "out"), "Read-only file system", "to the directory")
    remount(disk, "rw")
    write = "segrl.folder_job.worker.write"
    with monkeypatch.context() as patch:
        patch.setattr(write, lambda *_: shutil.rmtree(disk / "out"))
        fails_in_one_line(segment(photos, *COMMAND, "--out", disk / "out"), "No such file")
    assert segment(photos, *COMMAND, "--out", disk / "out").exit_code == 0
    segment(photos, *COMMAND, "--out", tmp_path / "w" / "out")
    assert files(disk / "out") == files(tmp_path / "w" / "out")


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """No file of this process grows longer: the system's write is short, and the next one fails."""
    was, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", ["jpg", "png", "text", "bytes"])
def test_what_is_cut_short_is_not_there(kind: str, tmp_path: Path) -> None:
    """Pillow alone leaves a JPEG that is cut off, and says nothing."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    path, old = tmp_path / f"x.{kind}", b"what stood there"
    path.write_bytes(old)
    writes = {
        "text": lambda: write_atomically(path, ("y" * 999 for _ in range(20))),
        "bytes": lambda: write_bytes(path, b"z" * 20_000),
    }
    with files_of_at_most(10_000), pytest.raises(SegrlError, match=rf"cannot write .*x\.{kind}"):
        writes.get(kind, lambda: write_image(path, noise))()
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_rows_that_do_not_fit_are_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"n": 1}])
    with files_of_at_most(10_000), pytest.raises(SegrlError, match="cannot write"):
        append_rows(path, [{"text": "y" * 20_000}])
    assert read_rows(path) == [{"n": 1}]
