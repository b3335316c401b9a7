"""Turns on two CPU processes, with and without divided weights: one process has several turns where the other has one.

Selection and dynamic sampling act beside them.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from small import save_policy
from test_sharded import DIVISIONS, SUPPORT, environment
from test_two_processes import CLOSE, run
from turns_on_two import SHORT

from segrl.files import read_rows
from segrl.training.distributed import command

RECIPE = {
    "method": "grpo",
    "segmenter": "box",
    "dataset": {"name": "tiny", "n": 12, "seed": 3, "kinds": ["colour_shape"]},
    "rewards": {"characters": {"weight": 1.0, "python": "turns_on_two.characters"}},
    "reward_check": False,
    "turns": {"max": 3, "show": "cutout", "instruction": False, "answer_tokens": SHORT},
    "select": {"best": 1, "worst": 1},
    "dynamic_sampling": "replace",
    "log": {"rollouts": {"every": 1, "groups": 2}},
    "trainer": {
        "max_steps": 3,
        "save_steps": 3,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 320,
        "learning_rate": 0.01,
        "optim": "adamw_torch",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "beta": 0.0,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    save_policy(folder / "policy")
    return folder


def trained(folder: Path, name: str) -> Path:
    """The run of two processes whose weights are divided as `name` says; "whole": not at all."""
    out = folder / name
    if not out.exists():
        trainer = {**RECIPE["trainer"], **DIVISIONS.get(name, {})}
        recipe = folder / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump({**RECIPE, "policy": str(folder / "policy"), "trainer": trainer}))
        out.mkdir()
        line = command(2, [str(SUPPORT / "turns_on_two.py"), str(recipe), str(out)])
        run(line, folder, environment(name))
    return out


def test_turns_selection_and_replacement_on_two_processes(folder: Path):
    """Three steps; all the first process's completions have three turns, all the second's one."""
    out = trained(folder, "whole")
    rows = read_rows(out / "steps.jsonl")
    assert [row["tools/call_frequency"] for row in rows] == [1.0] * 3  # two looks in every second conversation
    assert all(row["tools/failure_frequency"] == 0 for row in rows)
    assert max(row["groups/flat"] for row in rows) > 0
    assert max(row["groups/replaced"] for row in rows) > 0
    assert all(math.isfinite(row["loss"]) for row in rows)
    groups = read_rows(out / "rollouts.jsonl")
    turns = {tuple(len(one["turns"]) for one in group["completions"]) for group in groups}
    assert turns == {(3, 3, 3, 3), (1, 1, 1, 1)}
    begun, ended = (load_file(path / "model.safetensors") for path in (folder / "policy", out / "model"))
    assert max(float((ended[key] - begun[key]).abs().max()) for key in ended) > 100 * CLOSE


@pytest.mark.parametrize("name", ["fsdp", *(pytest.param(name, marks=pytest.mark.long) for name in ("zero2", "zero3"))])
def test_divided_weights_wait_for_the_process_with_more_turns(folder: Path, name: str):
    """The first step is the one of whole weights: what is generated for others to go on is not kept."""
    whole, divided = (read_rows(trained(folder, kind) / "steps.jsonl") for kind in ("whole", name))
    assert len(divided) == 3
    assert all(row["tools/call_frequency"] == 1.0 for row in divided)
    for key in ("reward", "reward_std", "groups/flat", "groups/replaced", "turns/mean", "loss", "grad_norm"):
        assert divided[0][key] == pytest.approx(whole[0][key], abs=CLOSE), key
