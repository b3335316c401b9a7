"""Runs a recipe: SFT or GRPO through TRL, resumed exactly where it was left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrl.files import read_rows, write_atomically
from segrl.training.recipe import Recipe
from segrl.training.run_dir import RunDir, copy_model, step_of

if TYPE_CHECKING:
    from transformers import TrainerCallback

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    model_dir: the trained policy, which `segrl.policies.load` and transformers load. steps and
    rollouts: the logs (JSON Lines). seconds: wall time of all its starts, as the step log counts it.
    """

    model_dir: Path
    steps_path: Path
    rollouts_path: Path
    last_step: int
    seconds: float


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    progress: bool = True,
    say: Say = print,
) -> TrainResult:
    """Runs `recipe` in the directory `out`, or goes on with it there; a finished run is only reported.

    callbacks: more of transformers' TrainerCallbacks. progress: a live view on a terminal, plain
    lines elsewhere. say: where one-line messages go. Raises RecipeError, ModelError or DataError
    for what the person who runs it can put right.
    """
    run = RunDir(Path(out))
    run.claim(recipe)
    if run.finished.exists():
        say(f"{run.root} is finished already (step {_result(run).last_step}): nothing to do")
        return _result(run)
    _send_nothing()
    last = _run(recipe, run, callbacks, progress, say)
    copy_model(last, run.model)
    seconds = sum(row["seconds"] for row in read_rows(run.steps))
    write_atomically(run.finished, json.dumps({"last_step": step_of(last), "seconds": round(seconds, 3)}) + "\n")
    return _result(run)


def _send_nothing() -> None:
    """TRL's trainers report their use to the hub; segrl reports nothing anywhere."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def _result(run: RunDir) -> TrainResult:
    done = json.loads(run.finished.read_text(encoding="utf-8"))
    return TrainResult(run.model, run.steps, run.rollouts, done["last_step"], done["seconds"])


def _run(recipe: Recipe, run: RunDir, callbacks: Sequence[TrainerCallback], progress: bool, say: Say) -> Path:
    """Trains to the end and returns the last checkpoint."""
    from segrl.training.setup import build, record_start

    checkpoint = run.last_complete()
    run.rewind(0 if checkpoint is None else step_of(checkpoint))
    built = build(recipe, run, say=say)
    record_start(run, checkpoint)
    trainer = built.trainer
    for callback in callbacks:
        trainer.add_callback(callback)
    if progress:
        from segrl.training.progress import Progress

        trainer.add_callback(Progress())
    trainer.add_callback(built.marker)  # last: it says that all others are done
    if checkpoint is not None:
        say(f"going on from step {step_of(checkpoint)} of {built.last_step}")
    if checkpoint is None or step_of(checkpoint) < built.last_step:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    last = run.last_complete()
    assert last is not None  # save_strategy is steps, and Trainer saves the last one
    return last
