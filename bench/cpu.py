"""Seconds a step of the quickstart on a CPU: float32 and bfloat16, alone and two at once, and on a slower processor.

python bench/cpu.py                    (part of `make bench`; bfloat16 where it is emulated takes most of the time)
python bench/cpu.py --short --only float32,alone,native --out DIR     (few completions: for the tests)

Writes cpu.json and the table of docs/performance.md. The slower processor is this one, held to AVX2: without
instructions for bfloat16, as most laptops, desktops and many clouds are. The first step warms up and is left out; where
bfloat16 is emulated, one step of minutes is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

from tables import write_table

from segrl.devices import core_count, processor_name
from segrl.files import read_rows, write_atomically

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "tiny_quickstart.yaml"
PROCESSORS = {"native": {}, "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}
TYPES = {"float32": "false", "bfloat16": "true"}
TOGETHER = {"alone": 1, "two at once": 2}
SHORT = ("trainer.per_device_train_batch_size=8", "trainer.max_completion_length=8")
PHASES = ("rollout", "reward", "update")


@dataclass(frozen=True)
class Row:
    """Median seconds of a step and of its parts; of two at once, the slower one's."""

    processor: str
    compute_type: str
    together: str
    seconds: float
    rollout: float
    reward: float
    update: float

    @property
    def setting(self) -> tuple[str, str, str]:
        """What was measured."""
        return self.processor, self.compute_type, self.together


def main() -> None:
    """Measure, print, write."""
    options = read_options()
    wanted = set(options.only.split(",")) if options.only else None
    machine = f"{processor_name()}, {core_count()} cores, torch threads by segrl ({platform.system()})"
    print(machine)
    kept = [] if options.short else earlier(options.out / "cpu.json", machine)
    for processor, kind, together in product(PROCESSORS, TYPES, TOGETHER):
        if wanted is None or wanted <= {processor, kind, together}:
            row = measure(processor, kind, together, options)
            kept = [one for one in kept if one.setting != row.setting] + [row]
            print(f"{processor:<7} {kind:<9} {together:<12} {row.seconds:7.2f} s/step", flush=True)
    rows = [row for setting in product(PROCESSORS, TYPES, TOGETHER) for row in kept if row.setting == setting]
    found = {"machine": machine, "steps": options.steps, "rows": [asdict(row) for row in rows]}
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "cpu.json", json.dumps(found, indent=1) + "\n")
    if options.out == HERE and not options.short:
        write_page(machine, rows)


def earlier(file: Path, machine: str) -> list[Row]:
    """Rows that were measured before, on the same machine."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"machine": None}
    return [Row(**row) for row in found["rows"]] if found["machine"] == machine else []


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="that are measured, after one that warms up")
    parser.add_argument("--only", default="", help="rows with all of these, as float32,native,alone; the others stay")
    parser.add_argument("--short", action="store_true", help="one step of few completions: the numbers mean nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


def measure(processor: str, kind: str, together: str, options: argparse.Namespace) -> Row:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [Path(scratch) / str(i) for i in range(TOGETHER[together])]
        started = [start(run, processor, kind, options) for run in runs]
        for process in started:
            output, _ = process.communicate()
            if process.returncode:
                sys.exit(f"the training ended with status {process.returncode}:\n{output}")
        return max((row_of(run, processor, kind, together) for run in runs), key=lambda row: row.seconds)


def start(run: Path, processor: str, kind: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """The quickstart's training without its measurements, as its command runs it."""
    is_emulated = bool(PROCESSORS[processor]) and kind == "bfloat16"
    steps = 1 if options.short or is_emulated else options.steps
    overrides = (
        "evaluation=null",
        "reward_check=false",
        f"trainer.bf16={TYPES[kind]}",
        f"trainer.max_steps={steps + 1}",
        f"trainer.save_steps={steps + 1}",
        "trainer.warmup_steps=0",
        *(SHORT if options.short else ()),
    )
    line = [sys.executable, "-c", "from segrl.cli import main; main()", "train", str(RECIPE), "--out", str(run)]
    environment = {**os.environ, **PROCESSORS[processor]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*line, *overrides], env=environment, **pipes)


def row_of(run: Path, processor: str, kind: str, together: str) -> Row:
    """The medians of a finished run."""
    steps = list(read_rows(run / "steps.jsonl"))[1:]
    seconds = {name: median(step[f"seconds/{name}"] for step in steps) for name in PHASES}
    return Row(processor, kind, together, median(step["seconds"] for step in steps), **seconds)


def write_page(machine: str, rows: list[Row]) -> None:
    """Puts the table into docs/performance.md."""
    lines = [
        f"`python bench/cpu.py` on {machine}:",
        "",
        "| processor | compute type | | seconds a step | rollout | reward | update |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.processor} | {row.compute_type} | {row.together} | {row.seconds:.1f} | {row.rollout:.1f} "
            f"| {row.reward:.1f} | {row.update:.1f} |"
            for row in rows
        ),
    ]
    write_table("bench/cpu.py", lines)


if __name__ == "__main__":
    main()
