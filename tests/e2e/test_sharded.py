"""Weights divided among two processes on a CPU: three GRPO steps, killed after the second, agree with one process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import extra
import pytest
import yaml
from safetensors.torch import load_file
from small import save_policy
from test_two_processes import RECIPE

from segrl.files import read_rows
from segrl.training.checkpoints import damage_of
from segrl.training.distributed import command

SUPPORT = Path(__file__).parents[1] / "support"
ROOT = Path(__file__).parents[2]
CLOSE = 1e-4
PATIENCE_S = 3600
"""DeepSpeed compiles an operator when it is first used, beside whatever else a machine does."""
TIED = "model.language_model.embed_tokens.weight"
SMOOTH = {"optim": "adamw_torch", "adam_epsilon": 1.0, "weight_decay": 0.0}
"""An optimizer with a state to be saved, whose update with so large an epsilon is not the gradient's sign: rounding
stays what it is."""
KEYS = ("reward", "reward_std", "rewards/iou/mean", "giou", "kl", "grad_norm", "loss")
DIVISIONS = {
    "fsdp": {"fsdp": True, "fsdp_config": {"version": 2}},
    "zero2": {"deepspeed": str(ROOT / "recipes" / "zero2.json")},
    "zero3": {"deepspeed": str(ROOT / "recipes" / "zero3.json")},
}
DEEPSPEED = ("deepspeed==0.19.8", "einops", "hjson", "msgpack", "ninja", "py-cpuinfo")


def environment(name: str) -> dict[str, str]:
    """Of the processes; DeepSpeed is only where it is asked for."""
    given = {**os.environ, "TRL_EXPERIMENTAL_SILENCE": "1"}
    places = [str(SUPPORT)]
    if name.startswith("zero"):
        building = {"DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu"}
        places.append(str(extra.folder("deepspeed", *DEEPSPEED, environment=building)))
    return given | {"PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])}


def write_recipe(folder: Path, name: str, **trainer: object) -> Path:
    policy = folder / "policy"
    options = {**RECIPE["trainer"], **SMOOTH, "beta": 0.1, **trainer}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "policy": str(policy), "trainer": options}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A policy, and a run of one process in `one`."""
    folder = tmp_path_factory.mktemp("sharded")
    save_policy(folder / "policy")
    recipe = write_recipe(folder, "one", per_device_train_batch_size=8)
    (folder / "one").mkdir()
    start = [sys.executable, str(SUPPORT / "sharded_run.py"), str(recipe), str(folder / "one")]
    subprocess.run(start, cwd=folder, env=environment("one"), check=True, timeout=PATIENCE_S)
    return folder


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    recipe = write_recipe(folder, name, per_device_train_batch_size=4, **DIVISIONS[name])
    out = folder / name
    out.mkdir(exist_ok=True)
    line = command(2, [str(SUPPORT / "sharded_run.py"), str(recipe), str(out)])
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            line, cwd=folder, env=environment(name), stdout=log, stderr=log, text=True, start_new_session=True
        )


def kill_when_held(process: subprocess.Popen[str], out: Path, patience_s: float = PATIENCE_S) -> None:
    """SIGKILL for all processes once each waits after the second step."""
    give_up = time.monotonic() + patience_s
    held = [out / f"held-{rank}" for rank in range(2)]
    try:
        while not all(path.exists() and path.read_text() for path in held):
            assert process.poll() is None, (out.parent / f"{out.name}.log").read_text()[-3000:]
            assert time.monotonic() < give_up, "the second step did not come"
            time.sleep(0.2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for path in held:  # the launcher's workers are in groups of their own
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int(path.read_text()), signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.timeout(2 * PATIENCE_S + 600)
@pytest.mark.parametrize("name", DIVISIONS)
def test_divided_weights_train_as_one_process_does(folder: Path, name: str):
    out = folder / name
    out.mkdir()
    (out / "hold").touch()
    kill_when_held(start(folder, name), out)
    assert damage_of(out / "checkpoints" / "checkpoint-2") is None
    assert not (out / "finished.json").exists()
    (out / "hold").unlink()
    again = start(folder, name)
    log = folder / f"{name}.log"
    assert again.wait(timeout=PATIENCE_S) == 0, log.read_text()[-3000:]
    assert "going on from step 2 of 3" in log.read_text()
    assert "each prompt is read once per group" in log.read_text()
    if name == "fsdp":
        assert "switched on by segrl" in log.read_text()
    agree(folder, name)


def agree(folder: Path, name: str) -> None:
    """Figures of every step, and the weights, to CLOSE; the weights have moved by far more."""
    alone, together = (read_rows(folder / one / "steps.jsonl") for one in ("one", name))
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        assert {key: b[key] for key in KEYS} == {key: pytest.approx(a[key], abs=CLOSE) for key in KEYS}
    assert alone[-1]["kl"] > 10 * CLOSE
    begun = load_file(folder / "policy" / "model.safetensors")
    ended, divided = (load_file(folder / one / "model" / "model.safetensors") for one in ("one", name))
    tied = divided.pop("lm_head.weight", divided[TIED])  # FSDP writes it a second time
    assert divided.keys() == ended.keys()
    assert tied.equal(divided[TIED])
    assert max((ended[key] - begun[key]).abs().max() for key in ended) > 100 * CLOSE
    difference = max(float((ended[key] - divided[key]).abs().max()) for key in ended)
    print(f"{name}: weights differ by {difference:.1e}")
    assert difference < CLOSE
    assert not list((folder / name / "model").glob("pytorch_model_fsdp*"))
