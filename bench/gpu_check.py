"""What segrl does on this machine's GPU, in at most eight minutes: runs the parts below and writes docs/gpu.md.

python bench/gpu_check.py                       (what `make gpu-check` runs; needs CUDA and no download)
python bench/gpu_check.py --short --out DIR     (tiny sizes on any machine, for the tests: the numbers mean nothing)

A part that takes longer than its time, or fails, is named on the page, and the exit status is 1. Outputs are kept in
runs/gpu_check.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segrl.devices import installed_version
from segrl.files import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parent
SEGRL = "from segrl.cli import main; main()"
VERSIONS = ("torch", "transformers", "trl", "accelerate")


@dataclass(frozen=True)
class Part:
    """One program. seconds: its time at most. rows: of its output folder, what is measured and the value."""

    title: str
    command: tuple[str, ...]
    seconds: int
    rows: Callable[[Path], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Done:
    """What came of a part. problem: "" where it went well."""

    part: Part
    seconds: float
    problem: str
    rows: tuple[tuple[str, str], ...]


def main() -> int:
    """Run every part, write the page."""
    options = read_options()
    if not options.short and not torch.cuda.is_available():
        print("gpu_check.py needs CUDA, and torch finds none here; --short runs anywhere", file=sys.stderr)
        return 2
    done = []
    for name, part in parts(options.short).items():
        done.append(run(part, options.out / name))
        told = done[-1].problem or ", ".join(f"{what} {value}" for what, value in done[-1].rows)
        print(f"{part.title}: {done[-1].seconds:.0f} s, {told}", flush=True)
    page = options.out / "gpu.md" if options.short else ROOT / "docs" / "gpu.md"
    write_atomically(page, "\n".join(page_of(done)) + "\n")
    print(f"written: {page}")
    return 1 if any(one.problem for one in done) else 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu_check")
    parser.add_argument("--short", action="store_true")
    return parser.parse_args()


def parts(short: bool) -> dict[str, Part]:
    """By the name of their output folder. Together they may take 480 seconds."""
    tiny = ("--short",) if short else ()
    slack = 5 if short else 1  # the short form may run beside other work
    on = ("--device", "cpu" if short else "cuda")
    if short:
        small = ("trainer.max_steps=1", "trainer.per_device_train_batch_size=8", "evaluation.dataset.n=4")
        learn = ("segrl", "train", "recipes/tiny_quickstart.yaml", "--out", "{out}", *small)
    else:
        learn = ("segrl", "quickstart", "--out", "{out}")
    hiera = () if short else ("--kind", "hiera_large", "--dtype", "bfloat16")
    one_size = () if short else ("--groups", "8", "--sides", "840", "--repeats", "3")
    sizes = () if short else ("--dtypes", "bfloat16", *one_size)
    return {
        "quickstart": Part("Quickstart", learn, slack * 150, quickstart_rows),
        "reward": Part("Mask reward", ("bench/run.py", *hiera, *on, *tiny, "--out", "{out}"), slack * 100, reward_rows),
        "step": Part("GRPO steps", ("bench/step.py", "--steps", "4", *tiny, "--out", "{out}"), slack * 140, step_rows),
        "parity": Part(
            "bfloat16 beside float32", ("bench/parity.py", *on, *tiny, "--out", "{out}"), slack * 30, parity_rows
        ),
        "update": Part("Update", ("bench/update.py", *sizes, *on, *tiny, "--out", "{out}"), slack * 40, update_rows),
        "rollout": Part(
            "Rollout", ("bench/rollout.py", *one_size, *on, *tiny, "--out", "{out}"), slack * 20, rollout_rows
        ),
    }


def run(part: Part, out: Path) -> Done:
    """The part's program with its output in `out`, stopped when its time is over."""
    out.mkdir(parents=True, exist_ok=True)
    words = [one.format(out=out) for one in part.command]
    line = [sys.executable, *(["-c", SEGRL, *words[1:]] if words[0] == "segrl" else words)]
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    with (out / "log.txt").open("w") as log:
        process = subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            status = process.wait(part.seconds)
            problem = "" if status == 0 else f"ended with status {status}: see {out / 'log.txt'}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            problem = f"not finished after {part.seconds} s"
    seconds = time.monotonic() - begun
    return Done(part, seconds, problem, () if problem else tuple(part.rows(out)))


def quickstart_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Greedy gIoU on held-out scenes before and after."""
    before, after = (
        read(out / "evaluation" / when / "metrics.json")["metrics"]["giou"] for when in ("before", "after")
    )
    yield "gIoU before and after", f"{before['value']:.3f} → {after['value']:.3f}"


def reward_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Each promise of bench/run.py."""
    for row in read(out / "results.json"):
        yield row["name"], f"{row['measured']:.3g} ({row['goal']}{'' if row['met'] else ', MISSED'})"


def step_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Speed by phase, and memory beside the estimate."""
    found = read(out / "step.json")
    yield "policy's parameters", f"{found['policy_parameters'] / 1e9:.2f} billion"
    yield "completions a second", f"{found['samples_per_second']:.3g}"
    yield (
        "seconds of a step: rollout, reward, update",
        ", ".join(f"{found[f'seconds_{phase}']:.2f}" for phase in ("rollout", "reward", "update")),
    )
    yield "the reward's share of the step", f"{100 * found['reward_share']:.1f}%"
    yield "peak memory, and what `segrl plan` says", f"{found['peak_gb']:.1f} GB, {found['planned_gb']:.1f} GB"


def parity_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Masks and log-probabilities."""
    found = read(out / "parity.json")
    yield "mean IoU of the masks, 16 prompts", f"{found['mask_iou']:.4f}"
    yield (
        "log-probability of a token, largest and mean difference",
        (f"{found['log_probability']:.2g}, {found['log_probability_mean']:.2g}"),
    )


def update_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Seconds and memory over plain TRL's."""
    for row in read(out / "update.json")["rows"]:
        seconds, megabytes = (row[key]["ours"] / row[key]["plain"] for key in ("seconds", "megabytes"))
        what = f"group of {row['group']}, {row['side']}×{row['side']}, {row['dtype']}: time and memory over plain TRL's"
        yield what, f"{seconds:.2f}, {megabytes:.2f}"


def rollout_rows(out: Path) -> Iterator[tuple[str, str]]:
    """Seconds and memory over those of transformers' generate."""
    for row in read(out / "rollout.json")["rows"]:
        ratios = [f"{row[key]['ours'] / row[key]['plain']:.2f}" for key in ("seconds", "first", "megabytes")]
        what = (
            f"group of {row['group']}, {row['side']}×{row['side']}: time, time to the first token and memory over TRL's"
        )
        yield what, ", ".join(ratios)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def page_of(done: list[Done]) -> Iterator[str]:
    """docs/gpu.md."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    memory = f", {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {installed_version(name)}" for name in VERSIONS)
    yield from ("# On a GPU", "")
    yield "`make gpu-check` wrote this page. Policy and segmenter have the real sizes (Qwen2.5-VL-3B, SAM 2.1"
    yield "Hiera-L) and random weights, so nothing is downloaded; the quickstart has its own tiny policy."
    yield from ("", f"{device}{memory}; {versions}; {sum(one.seconds for one in done):.0f} s in all.")
    for one in done:
        yield from (
            "",
            f"## {one.part.title}",
            "",
            f"    python {' '.join(one.part.command)}".replace("{out}", "DIR"),
            "",
        )
        yield f"{one.seconds:.0f} s." if not one.problem else f"**{one.problem}**"
        if one.rows:
            yield from ("", "| measured | |", "|---|---|", *(f"| {what} | {value} |" for what, value in one.rows))


if __name__ == "__main__":
    sys.exit(main())
