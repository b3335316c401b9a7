"""Which checkpoints of a run are kept: the newest, and the one that answered held-out examples best."""

from __future__ import annotations

import shutil
from pathlib import Path

from segrl.files import read_rows
from segrl.training.checkpoints import RunDir, is_complete, step_of
from segrl.training.recipe import CheckpointSection


def best_checkpoint(run: RunDir) -> Path | None:
    """The whole checkpoint with the highest held-out gIoU, the earliest of equals; None where none was measured."""
    measured = [(giou, path) for path in _whole(run) if (giou := held_out_giou(run, step_of(path))) is not None]
    return max(measured, key=lambda pair: pair[0], default=(0.0, None))[1]


def held_out_giou(run: RunDir, step: int) -> float | None:
    """Mean IoU of the held-out answers after a step; None where they were not asked for or are not there."""
    rows = read_rows(run.held_out(step))
    return sum(row["iou"] for row in rows) / len(rows) if rows else None


def drop_others(run: RunDir, rule: CheckpointSection) -> None:
    """Removes every whole checkpoint that the rule does not keep."""
    whole = _whole(run)
    kept = {*whole[-rule.last :], *([best_checkpoint(run)] if rule.best else [])}
    for path in whole:
        if path not in kept:
            shutil.rmtree(path)


def _whole(run: RunDir) -> list[Path]:
    """Whole checkpoints, the oldest first."""
    return sorted(filter(is_complete, run.checkpoints.glob("checkpoint-*")), key=step_of)
