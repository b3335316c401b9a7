"""A run that is killed and started again ends exactly as one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml

from segrl.files import read_rows
from segrl.policies import PolicySettings, write_settings
from segrl.tiny.model import Shape, save

SMALL = Shape(width=32, layers=2, heads=2, mlp=64, vision_width=32, vision_layers=2, vision_heads=2, vision_mlp=32)
PRELOADED = [
    "segrl.training.trainer",
    "segrl.tiny.scenes",
    "torch",
    "trl.trainer.grpo_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
]
TIMES = ("seconds", "step_time", "tokens_per_second")

GRPO = {
    "method": "grpo",
    "segmenter": "box",
    # 12 queries, 4 a rollout: the second epoch begins with the fourth of 6 rollouts
    "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape", "none"]},
    "rewards": {"iou": 0.7, "format": 0.3, "short": {"weight": 1, "python": "segrl_resume_terms.short"}},
    "reward_check": False,  # what `short` pays has nothing to do with the answer
    "trainer": {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "num_generations": 2,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "bf16": False,  # not left to a measurement: two runs are compared
        "save_steps": 2,
        "gradient_checkpointing": False,
    },
    "evaluation": {"dataset": {"n": 3, "seed": 5}, "every": 4, "max_new_tokens": 8},
    "log": {"rollouts": {"every": 1, "groups": 2}},
}
SFT = {
    "method": "sft",
    "dataset": {"name": "tiny", "n": 12, "seed": 3},
    "trainer": {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "bf16": False,  # not left to a measurement: two runs are compared
        "save_steps": 2,
        "dataloader_num_workers": 1,
        "dataloader_multiprocessing_context": "fork",
        "gradient_checkpointing": False,
    },
}
LAST_STEP = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A directory with a small random policy, and a reward term that differs between random completions."""
    place = tmp_path_factory.mktemp("resume")
    save(place / "policy", SMALL)
    write_settings(place / "policy", PolicySettings("seg-r1", "resized", (112, 112)))
    (place / "segrl_resume_terms.py").write_text("def short(rollout):\n    return float(len(rollout.text) % 7)\n")
    return place


def run_recipe(recipe: Path, out: Path, extra_path: Path) -> None:
    """What a started process does."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(extra_path))
    from segrl.training import load_recipe, train

    train(load_recipe(recipe), out, progress=False)


@pytest.fixture(scope="module")
def start(place):
    """Starts a recipe in a process of its own, forked off a server that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def begin(recipe: dict, out: Path) -> multiprocessing.Process:
        path = place / f"{recipe['method']}.yaml"
        path.write_text(yaml.safe_dump({**recipe, "policy": str(place / "policy")}))
        process = context.Process(target=run_recipe, args=(path, out, place))
        process.start()
        return process

    return begin


def finish(process: multiprocessing.Process) -> None:
    process.join(timeout=600)
    assert process.exitcode == 0


def kill_when(process: multiprocessing.Process, reached, wait: float) -> bool:
    """SIGKILL `wait` seconds after `reached()` holds; False if the process ended before."""
    while not reached():
        if not process.is_alive():
            return False
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def result(out: Path) -> tuple[list, list, bytes]:
    """Logged rows without times, rollouts, and the weights."""
    rows = read_rows(out / "steps.jsonl")
    steps = [{key: v for key, v in row.items() if not key.startswith(TIMES)} for row in rows]
    return steps, read_rows(out / "rollouts.jsonl"), (out / "model" / "model.safetensors").read_bytes()


def whole_files(out: Path) -> dict[str, bytes]:
    """The policy, the rollouts' pictures and the held-out metrics, byte for byte."""
    kept = ("model/*", "pictures/*", "evaluation/held_out/*/metrics.json")
    paths = sorted(path for pattern in kept for path in out.glob(pattern))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths if path.name != "training_args.bin"}


def assert_equal(broken: Path, whole: Path) -> None:
    steps, rollouts, weights = result(broken)
    true_steps, true_rollouts, true_weights = result(whole)
    assert [row["step"] for row in steps] == list(range(1, LAST_STEP + 1))  # replaced, not doubled
    for row, true in zip(steps, true_steps, strict=True):
        assert row == true
    assert rollouts == true_rollouts
    assert weights == true_weights
    assert whole_files(broken) == whole_files(whole)


@pytest.fixture(scope="module")
def whole(place, start) -> dict[str, Path]:
    """One undisturbed run of each method."""
    outs = {}
    for recipe in (GRPO, SFT):
        outs[recipe["method"]] = place / f"{recipe['method']}-whole"
        finish(start(recipe, outs[recipe["method"]]))
    return outs


def moments(out: Path) -> dict:
    """Conditions on a run's directory, each true for a short while."""

    def steps() -> int:
        path = out / "steps.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def saving(step: int) -> bool:
        checkpoint = out / "checkpoints" / f"checkpoint-{step}"
        return checkpoint.exists() and not (checkpoint / "segrl_complete.json").exists()

    return {
        "before the first checkpoint": lambda: steps() >= 1,
        "during a save": lambda: saving(6),
        "in the second epoch": lambda: steps() >= 9,
        "during the last save": lambda: saving(LAST_STEP),
        "while the model is copied": lambda: (out / "model.part").exists() or (out / "model").exists(),
    }


@pytest.mark.parametrize("recipe", [GRPO, SFT], ids=["grpo", "sft"])
def test_killed_again_and_again(place, start, whole, recipe):
    """Killed at every kind of moment in one run: each start goes on from the last whole checkpoint."""
    out = place / f"{recipe['method']}-broken"
    killed = 0
    for reached in moments(out).values():
        killed += kill_when(start(recipe, out), reached, wait=0.0)
    finish(start(recipe, out))
    assert killed >= 3  # the shortest moments may pass between two looks
    assert_equal(out, whole[recipe["method"]])


def test_the_undisturbed_run_learned_something(whole):
    for method, out in whole.items():
        rows = read_rows(out / "steps.jsonl")
        assert all(row["grad_norm"] > 0 for row in rows), method
    shas = [row["completions_sha"] for row in read_rows(whole["grpo"] / "steps.jsonl")]
    assert len(set(shas)) == LAST_STEP // 2
    measured = [row["step"] for row in read_rows(whole["grpo"] / "steps.jsonl") if "held_out/giou" in row]
    assert measured == [4, 8, 12]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments(start, whole, seed, tmp_path):
    rng = random.Random(seed)
    recipe = (GRPO, SFT)[seed % 2]
    out = tmp_path / "run"
    for _ in range(4):
        at = rng.randrange(LAST_STEP)
        reached = lambda: (out / "steps.jsonl").exists() and len(read_rows(out / "steps.jsonl")) > at  # noqa: B023, E731
        kill_when(start(recipe, out), reached, wait=rng.uniform(0, 0.3))
    finish(start(recipe, out))
    assert_equal(out, whole[recipe["method"]])
