"""A disk that fills, is read-only or goes away: one line, and the next run mends everything."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from folder_runs import fixed_answers, segment
from PIL import Image

from segrl.errors import SegrlError
from segrl.files import append_rows, read_rows, write_atomically, write_bytes, write_image

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
