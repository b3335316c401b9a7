"""What the commands do, as functions: segment a folder, train, evaluate and report; `segrl.load` for single images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segrl.experiment import Improvement
    from segrl.folder_job import Summary


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation. directory: where it is. metrics: as metrics.json holds them. page: its report. baseline:
    the metrics of the query sent to the segmenter as it is, where that was measured."""

    directory: Path
    metrics: Mapping[str, Any]
    page: Path
    baseline: Mapping[str, Any] | None = None


def segment(
    photos: Sequence[Path | str],
    queries: Sequence[str],
    out: Path | str,
    *,
    policy: str = "tiny",
    formats: Sequence[str] = ("coco", "png"),
    min_confidence: float = 0.0,
    by_doubt: bool = False,
    review: int = 0,
    processes: int = 1,
    **options: Any,
) -> Summary:
    """Masks of a folder as `segrl segment` makes them; the same call, or the command, goes on there.

    photos: images, folders, patterns or tables (`folder_job.find_jobs`). min_confidence, by_doubt, review: as the
    command takes them: leave out what is less sure, write the least sure images first, and so many of them for an
    annotator. options: of `segrl.load`, in plain values (`decoding={"samples": 8}`). Returns what was done and the
    files. Raises SegrlError.
    """
    from segrl.folder_job import Plan, find_jobs, segment_photos
    from segrl.jobs.cluster import executor
    from segrl.loading import folder_options

    place = Path(out)
    jobs = find_jobs([str(one) for one in photos], queries, leave_out=place).jobs
    plan = Plan(
        place,
        tuple(formats),
        folder_options(policy, **options),
        min_confidence=min_confidence,
        by_doubt=by_doubt,
        review=review,
    )
    return segment_photos(jobs, plan, executor=executor(processes))


def train(
    recipe: Path | str, out: Path | str, *overrides: str, processes: int = 1, say: Callable[[str], None] = print
) -> Improvement:
    """Runs a recipe as `segrl train` does: evaluate, train, evaluate, report; the same call goes on after a stop.

    recipe: a YAML file. overrides: "key=value", in place of the recipe's. processes: on how many of this machine,
    one per GPU. Returns the last stage's report, summary and policy. Raises SegrlError.
    """
    from segrl.experiment import improve
    from segrl.training.parts import open_stages

    model: Path | None = None
    for stage in open_stages(recipe, overrides):
        done = improve(stage.resolved(model), stage.directory(Path(out)), processes=processes, say=say)
        model = done.model_dir
    return done


def evaluate(
    policy: str, dataset: str, out: Path | str, *, processes: int = 1, baseline: bool = True, **settings: Any
) -> Evaluation:
    """Measures a policy on a data set as `segrl eval` does, in the directory `out`; the same call goes on there.

    baseline: also measure the query sent to the segmenter as it is, where that takes words. settings: the other fields
    of `segrl.evaluation.EvalSettings`, for instance `dataset_options={"root": "data"}`, `segmenter="grabcut"`. Raises
    SegrlError, also for a setting that there is not.
    """
    from segrl import datasets
    from segrl.evaluation import EvalDir, EvalSettings, run, run_on
    from segrl.evaluation.result import with_baseline
    from segrl.jobs import Processes
    from segrl.text import check_options

    check_options("an evaluation", EvalSettings, settings)
    from segrl.reporting.evaluation import keep_pictures, write_page

    chosen, directory = EvalSettings(policy=policy, dataset=dataset, **settings), EvalDir(Path(out))
    asked_as_it_is = chosen.baseline if baseline else None
    if asked_as_it_is is not None:
        run(asked_as_it_is, directory.baseline.path)
    if processes == 1:
        run(chosen, directory.path)
    else:
        run_on(chosen, directory.path, Processes(processes))
    if not directory.has_page:
        keep_pictures(directory.path, datasets.load(chosen.dataset, **chosen.dataset_options))
        write_page(directory.path)
    metrics = json.loads(directory.metrics.read_text(encoding="utf-8"))
    plain = with_baseline(directory).get("baseline")
    return Evaluation(directory.path, metrics, directory.report, plain)


def report(directory: Path | str) -> Path:
    """Writes the page of a run or of an evaluation again, as `segrl report` does; returns its path.

    Raises SegrlError for a directory that is neither.
    """
    from segrl.reporting import write_report

    return write_report(directory)
