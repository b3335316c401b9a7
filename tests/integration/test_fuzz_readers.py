"""Mutated COCO, LabelMe, YOLO, Label Studio, JSON Lines and image files: examples or one line, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parents[1] / "support" / "reader_fuzz.py"
MEBIBYTES = 1024
"""What the process may take at its peak, with everything that it has imported."""


def fuzz(cases: int, seed: int, place: Path) -> dict[str, Any]:
    command = [sys.executable, FUZZ, str(cases), str(seed), place]
    environment = os.environ | {"OPENCV_LOG_LEVEL": "SILENT"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(found: dict[str, Any], cases: int) -> None:
    assert found["n_faults"] == 0, "\n".join(found["faults"])
    assert found["peak_mib"] < MEBIBYTES
    assert sum(found["counts"].values()) == cases
    assert all(found["counts"][f"{kind} {end}"] for kind in ("coco", "jsonl", "image") for end in ("read", "refused"))


def test_a_few_hundred_damaged_files(tmp_path: Path) -> None:
    check(fuzz(420, 1, tmp_path), 420)


@pytest.mark.long
def test_a_hundred_thousand_damaged_files(tmp_path: Path) -> None:
    check(fuzz(100_000, 0, tmp_path), 100_000)
