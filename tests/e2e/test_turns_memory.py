"""The memory of a folder answered in turns does not grow with the number of its pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SUPPORT = Path(__file__).parents[1] / "support"
MAY_GROW_BYTES = 6 * 2**20
"""In the second half, for what an allocator keeps; 500 pictures of 96×128 with their masks would be 24 MB and more."""


@pytest.mark.parametrize("segmenter", ["tiny", "grabcut"])
@pytest.mark.parametrize("pictures", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_memory_is_flat_over_many_pictures(pictures: int, segmenter: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(pictures):
        noise = np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{i:04}.png", compress_level=0)
    command = [sys.executable, str(SUPPORT / "turns_memory.py"), str(photos), str(tmp_path / "out"), segmenter]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["new"] == pictures
    held = found["held"]
    print([round(one / 2**20, 1) for one in held])
    assert max(held[len(held) // 2 :]) - max(held[: len(held) // 2]) < MAY_GROW_BYTES
