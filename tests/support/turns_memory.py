"""`segrl segment --turns 4` over many pictures in this process; prints what memory it holds after each tenth of them.

python tests/support/turns_memory.py FOLDER OUT SEGMENTER
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pytest
from folder_runs import fixed_answers

from segrl.folder_job import Plan, find_jobs, segment_photos

SHARES = 10


def resident_bytes() -> int:
    """Bytes of VmRSS of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def main(folder: str, out: str, segmenter: str) -> None:
    """One line of JSON: the memory after each tenth of the pictures."""
    seen = fixed_answers(pytest.MonkeyPatch())
    held: list[int] = []

    def watch(done: int, total: int) -> None:
        seen.clear()
        if done * SHARES // total > (done - 1) * SHARES // total:
            gc.collect()
            held.append(resident_bytes())

    model = {"policy": "tiny", "segmenter": segmenter, "decoding": {"turns": 4}}
    jobs = find_jobs([folder], ["box"]).jobs
    summary = segment_photos(jobs, Plan(Path(out), ("rle",), model, batch_size=4), on_image=watch)
    print(json.dumps({"new": summary.new, "held": held}))


if __name__ == "__main__":
    main(*sys.argv[1:])
