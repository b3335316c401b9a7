"""In which type a run computes on a CPU."""

from __future__ import annotations

import json

import pytest

from segrl.devices import ComputeType
from segrl.training.checkpoints import RunDir
from segrl.training.options import build_config
from segrl.training.recipe import parse_recipe
from segrl.training.trainer import began_with


@pytest.fixture
def measured(monkeypatch):
    """A processor whose bfloat16 takes `share` of float32's time."""

    def of(share: float) -> ComputeType:
        chosen = ComputeType("bfloat16" if share < 0.9 else "float32", share)
        monkeypatch.setattr("segrl.training.options.cpu_compute_type", lambda: chosen)
        return chosen

    return of


CASES = [
    (0.5, {}, True, "computing in bfloat16: bfloat16 is 2.0 times as fast as float32 on this processor"),
    (12.0, {}, False, "computing in float32: bfloat16 is 12.0 times slower than float32 on this processor"),
    (12.0, {"bf16": True}, True, "computing in bfloat16 as asked: bfloat16 is 12.0 times slower than float32"),
    (0.5, {"bf16": True}, True, None),
    (0.5, {"bf16": False}, False, None),
]


@pytest.mark.parametrize(("share", "trainer", "expected", "line"), CASES)
def test_the_faster_type_unless_the_recipe_says(tmp_path, measured, share, trainer, expected, line):
    measured(share)
    said: list[str] = []
    recipe = parse_recipe(
        {"method": "sft", "policy": "tiny", "dataset": "tiny", "trainer": {"use_cpu": True, **trainer}}
    )
    assert build_config(recipe, tmp_path, say=said.append).bf16 is expected
    assert [one for one in said if "computing" in one][:1] == ([] if line is None else [said[-1]])
    assert line is None or said[-1].startswith(line)


@pytest.mark.parametrize(("recorded", "kept"), [({"compute_type": "float32"}, "float32"), ({}, "bfloat16")])
def test_a_run_keeps_the_type_it_began_with(tmp_path, measured, recorded, kept):
    measured(0.5 if kept == "float32" else 12.0)
    run = RunDir(tmp_path)
    assert began_with(run) is None
    (tmp_path / "run.json").write_text(json.dumps({"starts": [recorded, {"compute_type": "other"}]}))
    assert began_with(run) is None  # it has no checkpoint: it starts anew
    (run.checkpoints / "checkpoint-3").mkdir(parents=True)
    recipe = parse_recipe({"method": "sft", "policy": "tiny", "dataset": "tiny", "trainer": {"use_cpu": True}})
    said: list[str] = []
    config = build_config(recipe, tmp_path, began_with=began_with(run), say=said.append)
    assert config.bf16 is (kept == "bfloat16")
    assert said == [f"computing in {kept}: the run began with it"]
