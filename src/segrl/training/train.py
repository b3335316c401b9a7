"""Runs a recipe: SFT or GRPO through TRL, resumed exactly where it was left."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.devices import is_main, wait_for_all
from segrl.errors import SegrlError
from segrl.files import read_rows, write_atomically, write_bytes
from segrl.text import first_line
from segrl.training.checkpoints import RunDir, copy_model, damage_of, step_of
from segrl.training.diagnosis import broken_by
from segrl.training.recipe import Recipe
from segrl.training.reward_check import ensure_reward

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from segrl.training.parts import Parts
    from segrl.training.trainer import RolloutFunction

Say = Callable[[str], None]

UNSAMPLABLE = "probability tensor contains"
"""How torch's sampler begins to say that the next token's probabilities are not finite."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
FAILED_WRITES = ("No space left", "File too large", "Disk quota", "PytorchStreamWriter failed", "unexpected pos")
"""The same as safetensors and torch say it, whose errors carry no number."""


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
    recipe: Recipe | Parts,
    out: Path | str,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    rollout_func: RolloutFunction | None = None,
    progress: bool = True,
    say: Say = print,
) -> TrainResult:
    """Runs `recipe` in the directory `out`, or goes on with it there; a finished run is only reported.

    recipe: or its parts, of which those that were opened already are not opened again.
    callbacks: more of transformers' TrainerCallbacks. rollout_func: TRL's, in place of its sampling.
    progress: a live view on a terminal, plain lines elsewhere. say: where one-line messages go. Of
    several processes (`segrl.training.distributed`) the first alone writes the directory and speaks. Raises
    RecipeError, ModelError or DataError for what the person who runs it can put right.
    """
    from segrl.training.parts import Parts

    parts, run = recipe if isinstance(recipe, Parts) else Parts(recipe), RunDir(Path(out))
    say = say if is_main() else _silent
    if is_main():
        run.claim(parts.recipe)
    if run.finished.exists():
        say(f"{run.path} is finished already (step {result_of(run).last_step}): nothing to do")
        return result_of(run)
    _send_nothing()
    ensure_reward(parts, run, say)
    _run(parts, run, callbacks, rollout_func, progress, say)
    if is_main():
        _finish(run, say)
    wait_for_all()
    return result_of(run)


def _silent(line: str) -> None:
    """What a process says that is not the first."""


def _finish(run: RunDir, say: Say) -> None:
    last = run.last_complete(say)
    assert last is not None  # save_strategy is steps, and Trainer saves the last one
    copy_model(last, run.model)
    seconds = sum(row["seconds"] for row in read_rows(run.steps))
    write_atomically(run.finished, json.dumps({"last_step": step_of(last), "seconds": round(seconds, 3)}) + "\n")


def _send_nothing() -> None:
    """TRL's trainers report their use to the hub; segrl reports nothing anywhere."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def result_of(run: RunDir) -> TrainResult:
    """What a finished run left."""
    done = json.loads(run.finished.read_text(encoding="utf-8"))
    return TrainResult(run.model, run.steps, run.rollouts, done["last_step"], done["seconds"])


def _run(
    parts: Parts,
    run: RunDir,
    callbacks: Sequence[TrainerCallback],
    rollout_func: RolloutFunction | None,
    progress: bool,
    say: Say,
) -> None:
    """Trains to the end, which leaves the last checkpoint."""
    from segrl.training.callbacks import Progress
    from segrl.training.trainer import build, record_start

    checkpoint = run.last_complete(say) if is_main() else _last_whole(run)
    if is_main():
        run.rewind(0 if checkpoint is None else step_of(checkpoint))
    view = Progress(say=say) if progress else None
    with _told(run):
        built = build(parts, run, rollout_func=rollout_func, say=say if view is None else view.say)
    if is_main():
        record_start(run, checkpoint, built.trainer.args)
    trainer = built.trainer
    for callback in (*callbacks, *([] if view is None else [view])):
        trainer.add_callback(callback)
    trainer.add_callback(built.marker)  # last: it says that all others are done
    if checkpoint is not None:
        say(f"going on from step {step_of(checkpoint)} of {built.last_step}")
    if checkpoint is None or step_of(checkpoint) < built.last_step:
        with _told(run, trainer):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _last_whole(run: RunDir) -> Path | None:
    """What `run.last_complete()` finds, for a process that removes nothing."""
    newest_first = sorted(run.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
    return next((path for path in newest_first if damage_of(path) is None), None)


@contextmanager
def _told(run: RunDir, trainer: Any = None) -> Iterator[None]:
    """What ends a training through no fault of ours, as one line: a sampler without probabilities, a full disk."""
    try:
        yield
    except Exception as error:  # safetensors has a class of its own; what is not ours to explain goes on
        if trainer is not None and UNSAMPLABLE in str(error):
            finding = broken_by("The next token's probabilities are not finite.")
            raise SegrlError(f"step {trainer.state.global_step + 1}: {finding}") from error
        reason = _not_written(error) or _no_room_in(run.path)
        if reason is not None:
            raise SegrlError(
                f"{run.path}: a file could not be written ({reason}): free some space and start the same command "
                "again; it goes on from the last whole checkpoint"
            ) from error
        raise


def _no_room_in(folder: Path) -> str | None:
    """Why nothing can be written there, tried, since not every library says what stopped it; None if it can."""
    probe = folder / ".room"
    try:
        write_bytes(probe, bytes(2**16))
    except SegrlError as error:
        return _not_written(error)
    finally:
        probe.unlink(missing_ok=True)
    return None


def _not_written(error: BaseException) -> str | None:
    """Why a file could not be written, if that is what an error says, or one that it came of; else None."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return error.strerror
    if any(words in str(error) for words in FAILED_WRITES):
        return first_line(error)
    behind = error.__cause__ or error.__context__
    return None if behind is None else _not_written(behind)
