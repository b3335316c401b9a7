"""What the commands do, as functions: train, evaluate and report. `segrl.load` makes masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segrl.experiment import Improvement


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation. directory: where it is. metrics: as metrics.json holds them. page: its report."""

    directory: Path
    metrics: Mapping[str, Any]
    page: Path


def train(
    recipe: Path | str, out: Path | str, *overrides: str, processes: int = 1, say: Callable[[str], None] = print
) -> Improvement:
    """Runs a recipe as `segrl train` does: evaluate, train, evaluate, report; the same call goes on after a stop.

    recipe: a YAML file. overrides: "key=value", in place of the recipe's. processes: on how many of this machine,
    one per GPU. Returns the last stage's report, summary and policy. Raises SegrlError.
    """
    from segrl.experiment import improve
    from segrl.training.recipe import load_stages

    model: Path | None = None
    for stage in load_stages(Path(recipe), overrides):
        done = improve(stage.resolved(model), stage.directory(Path(out)), processes=processes, say=say)
        model = done.model_dir
    return done


def evaluate(policy: str, dataset: str, out: Path | str, *, processes: int = 1, **settings: Any) -> Evaluation:
    """Measures a policy on a data set as `segrl eval` does, in the directory `out`; the same call goes on there.

    settings: the other fields of `segrl.evaluation.EvalSettings`, for instance `dataset_options={"root": "data"}`,
    `segmenter="grabcut"`. Raises SegrlError, also for a setting that there is not.
    """
    from segrl import datasets
    from segrl.evaluation import EvalDir, EvalSettings, run, run_on
    from segrl.jobs import Processes
    from segrl.text import check_options

    check_options("an evaluation", EvalSettings, settings)
    from segrl.reporting.evaluation import keep_pictures, write_page

    chosen, directory = EvalSettings(policy=policy, dataset=dataset, **settings), EvalDir(Path(out))
    if processes == 1:
        run(chosen, directory.path)
    else:
        run_on(chosen, directory.path, Processes(processes))
    if not directory.has_page:
        keep_pictures(directory.path, datasets.load(chosen.dataset, **chosen.dataset_options))
        write_page(directory.path)
    return Evaluation(directory.path, json.loads(directory.metrics.read_text(encoding="utf-8")), directory.report)


def report(directory: Path | str) -> Path:
    """Writes the page of a run or of an evaluation again, as `segrl report` does; returns its path.

    Raises SegrlError for a directory that is neither.
    """
    from segrl.reporting import write_report

    return write_report(directory)
