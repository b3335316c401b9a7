"""Which checkpoints are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segrl.training.checkpoints import RunDir, best_checkpoint, drop_others, held_out_giou, mark_complete
from segrl.training.sections import CheckpointSection

VALUES = {"method": "sft", "policy": "tiny", "dataset": "tiny", "segmenter": "box"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def checkpoint(run: RunDir, step: int, ious: list[float] | None = None) -> None:
    path = run.checkpoints / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("x")
    mark_complete(path)
    if ious is not None:
        run.held_out(step).mkdir(parents=True)
        metrics = {"metrics": {"giou": {"value": sum(ious) / len(ious)}}}
        (run.held_out(step) / "metrics.json").write_text(json.dumps(metrics))


def steps(run: RunDir) -> set[int]:
    return {int(path.name.split("-")[1]) for path in run.checkpoints.iterdir()}


def test_the_newest_are_kept_by_their_step(run: RunDir):
    for step in (30, 9, 100, 20):
        checkpoint(run, step)
    drop_others(run, CheckpointSection(last=3))
    assert steps(run) == {20, 30, 100}


def test_the_best_outlives_newer_ones(run: RunDir):
    for step, ious in ((10, [0.2, 0.4]), (20, [0.9, 0.7]), (30, [0.8, 0.8]), (40, None), (50, [0.1])):
        checkpoint(run, step, ious)
        drop_others(run, CheckpointSection(best=True))
    assert steps(run) == {20, 40, 50}
    assert best_checkpoint(run) == run.checkpoints / "checkpoint-20"
    assert (held_out_giou(run, 20), held_out_giou(run, 40)) == (pytest.approx(0.8), None)


def test_half_a_checkpoint_is_neither_kept_nor_counted(run: RunDir):
    for step in (1, 2, 3):
        checkpoint(run, step, [step / 10])
    (run.checkpoints / "checkpoint-3" / "model.safetensors").unlink()
    assert best_checkpoint(run) == run.checkpoints / "checkpoint-2"
    drop_others(run, CheckpointSection())
    assert steps(run) == {1, 2, 3}  # the next start removes what is broken
