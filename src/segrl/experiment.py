"""Measure a policy, train it, measure it again, write the report: what a whole run is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.evaluation import EvalDir, OnWindow, Share, describe, load
from segrl.evaluation import run as run_evaluation
from segrl.files import make_directory
from segrl.report import EvaluatedRun, chosen, write_report
from segrl.training import Recipe, train
from segrl.training.checkpoints import RunDir
from segrl.training.distributed import launch
from segrl.training.held_out import eval_settings
from segrl.training.recipe import DatasetSection
from segrl.training.reward_check import ensure_reward
from segrl.types import Example

Say = Callable[[str], None]
Watch = Callable[[str], OnWindow]
"""Given the name of a stage, what watches its evaluation."""


@dataclass(frozen=True)
class Improvement:
    """A finished run: its report, the numbers of summary.json, and where the trained policy lies."""

    report_path: Path
    summary: dict[str, Any]
    model_dir: Path


def improve(
    recipe: Recipe, out: Path | str, *, processes: int = 1, say: Say = print, watch: Watch | None = None
) -> Improvement:
    """Run `recipe` in `out`: evaluate (if it has an `evaluation`), train, evaluate again, report.

    Stages that are finished there already are not done again, so the same call goes on after an
    interruption. processes: on how many of this machine to train; measuring takes one. say: where
    one-line messages go. Raises SegrlError for what the user can put right, before anything long has
    begun where that can be known.
    """
    run = EvaluatedRun(_claim(recipe, Path(out), processes))
    ensure_reward(recipe, RunDir(run.path), say)
    if recipe.evaluation is not None:
        _measure(recipe, recipe.policy.path, run, "before", say, watch)
    trained = launch(recipe, run.path, processes, say=say) if processes > 1 else train(recipe, run.path, say=say)
    if recipe.evaluation is not None:
        _measure(recipe, str(trained.model_dir), run, "after", say, watch)
        _keep_pictures(recipe.evaluation.dataset, run)
    report_path = write_report(run.path)
    summary = json.loads(run.summary_path.read_text(encoding="utf-8"))
    return Improvement(report_path, summary, trained.model_dir)


def _claim(recipe: Recipe, out: Path, processes: int) -> Path:
    """Make `out` this recipe's, and refuse what is wrong with the recipe before the first evaluation."""
    from segrl.training.options import build_config

    _examples(recipe.dataset)
    if recipe.evaluation is not None:
        _examples(recipe.evaluation.dataset)
    make_directory(out)
    RunDir(out).claim(recipe)
    if processes == 1 and not RunDir(out).finished.exists():  # batch sizes that fit several may not fit one
        build_config(recipe, RunDir(out).checkpoints, say=lambda line: None)
    return out


def _measure(recipe: Recipe, path: str, run: EvaluatedRun, stage: str, say: Say, watch: Watch | None) -> None:
    """Evaluate the policy in `path` unless that is done already."""
    directory = run.before_dir if stage == "before" else run.after_dir
    if directory.is_finished:
        say(f"measured {stage} training already: {directory.path}")
        return
    measure(recipe, path, directory.path, watch(stage) if watch else None, say=say)


def measure(
    recipe: Recipe, policy: str, out: Path | str, on_window: OnWindow | None = None, *, say: Say = print
) -> EvalDir:
    """The recipe's evaluation of the policy in `policy`, in the directory `out`, as `segrl eval` makes one.

    What was begun there with other settings (another version of a package, another machine) is begun again; raises
    DataError if it was finished with other settings.
    """
    directory, loaded = EvalDir(Path(out)), load(eval_settings(recipe, policy))
    if directory.run.exists() and not directory.is_finished and (other := directory.differences(describe(loaded))):
        say(f"{directory.path} was begun with other settings ({'; '.join(other)}): it is measured anew")
        shutil.rmtree(directory.path)
    run_evaluation(loaded, directory.path, share=Share(), on_window=on_window)
    return directory


def _examples(section: DatasetSection) -> Sequence[Example]:
    from segrl import datasets

    return datasets.load(section.name, **section.options)


def _keep_pictures(section: DatasetSection, run: EvaluatedRun) -> None:
    """Save the pictures of the examples that the report shows."""
    shown = {pair.before.id for group in chosen(run) for pair in group.pairs}
    places = [i for i, record in enumerate(run.before) if record.id in shown]
    examples = _examples(section)
    run.save_images({example.image_id: example.image for example in (examples[i] for i in places)})
