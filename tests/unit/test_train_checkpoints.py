from __future__ import annotations

import json

import pytest
import yaml

from segrl.errors import RecipeError
from segrl.files import append_rows, read_rows
from segrl.training.checkpoints import COMPLETE, RunDir, copy_model, is_complete, mark_complete
from segrl.training.recipe import parse_recipe


def recipe(**change):
    return parse_recipe({"method": "sft", "policy": "tiny", "dataset": "tiny", **change})


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.claim(recipe())
    return run


def checkpoint(run: RunDir, step: int, complete: bool = True):
    path = run.checkpoints / f"checkpoint-{step}"
    path.mkdir()
    for name in ("model.safetensors", "config.json", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (path / name).write_text(f"{name} of {step}")
    if complete:
        mark_complete(path)
    return path


def test_another_recipe_is_refused_and_the_keys_named(run):
    append_rows(run.steps, [{"step": 1}])
    run.claim(recipe())
    with pytest.raises(RecipeError, match=r"dataset.n is null there and 5 here; seed is 0 there and 1 here"):
        run.claim(recipe(seed=1, dataset={"name": "tiny", "n": 5}))


def test_a_run_of_a_version_that_knew_fewer_keys_goes_on(run):
    append_rows(run.steps, [{"step": 1}])
    kept = yaml.safe_load(run.recipe.read_text())
    del kept["reward_check"]
    run.recipe.write_text(yaml.safe_dump(kept))
    run.claim(recipe())
    with pytest.raises(RecipeError, match=r"reward_check.samples is 8 there and 3 here"):
        run.claim(recipe(reward_check={"samples": 3}))


def test_the_newest_whole_checkpoint_counts_and_what_was_not_written_to_its_end_goes(run):
    assert run.last_complete() is None
    checkpoint(run, 2)
    checkpoint(run, 10)
    half_written = [checkpoint(run, step, complete=False) for step in (1, 12)]
    said: list[str] = []
    assert run.last_complete(said.append) == run.checkpoints / "checkpoint-10"
    assert not any(path.exists() for path in half_written)
    assert is_complete(run.checkpoints / "checkpoint-2")
    assert said == [f"removing {path}: it was not written to its end" for path in reversed(half_written)]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt cannot be read"),
        (lambda path: (path / "optimizer.pt").write_text(""), "optimizer.pt has 0 bytes, not 18"),
        (lambda path: (path / "optimizer.pt").write_text("optimizer.pt of 13"), "the contents of optimizer.pt have"),
        (lambda path: (path / COMPLETE).write_text("{}"), "segrl_complete.json cannot be read"),
        (lambda path: (path / COMPLETE).write_text('{"step": 12, "fi'), "segrl_complete.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_it_used(run, damage, told):
    checkpoint(run, 2)
    damage(checkpoint(run, 12))
    said: list[str] = []
    assert run.last_complete(said.append) == run.checkpoints / "checkpoint-2"
    assert told in said[0]
    assert "kept as damaged-checkpoint-12" in said[0]
    assert (run.checkpoints / "damaged-checkpoint-12" / "model.safetensors").exists()
    assert run.last_complete(said.append) == run.checkpoints / "checkpoint-2"
    assert len(said) == 1


def test_without_a_whole_checkpoint_the_run_says_that_it_begins_again(run):
    (checkpoint(run, 2) / "config.json").write_text("")
    said: list[str] = []
    assert run.last_complete(said.append) is None
    assert said[-1] == "no whole checkpoint is left: the run begins again at its first step"


def test_a_marker_that_was_cut_off_is_no_marker(run):
    path = checkpoint(run, 3, complete=False)
    (path / (COMPLETE + ".part")).write_text('{"step": 3, "fi')
    assert run.last_complete() is None


def test_rows_of_steps_to_be_repeated_go_and_a_cut_line_with_them(run):
    append_rows(run.steps, [{"step": i, "loss": None} for i in range(1, 6)])
    append_rows(run.rollouts, [{"step": 1}, {"step": 4}])
    with run.steps.open("a") as file:
        file.write('{"step": 6, "lo')
    run.rewind(3)
    assert [row["step"] for row in read_rows(run.steps)] == [1, 2, 3]
    assert read_rows(run.rollouts) == [{"step": 1}]
    run.rewind(0)
    assert read_rows(run.steps) == []


def test_the_model_is_copied_without_the_trainers_state(run):
    path = checkpoint(run, 4)
    run.model.with_name("model.part").mkdir()
    (run.model.with_name("model.part") / "left_over").write_text("from a run that was killed here")
    copy_model(path, run.model)
    assert sorted(p.name for p in run.model.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((path / COMPLETE).read_text())["step"] == 4
