"""Measure a policy, train it, measure it again, write the report: what a whole run is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.evaluation import EvalDir, OnWindow, Overlap, Share, describe, load
from segrl.evaluation import run as run_evaluation
from segrl.evaluation.overlap import overlap, read_overlap, write_overlap
from segrl.files import make_directory
from segrl.reporting import EvaluatedRun, chosen, write_report
from segrl.training import Recipe, TrainResult, train
from segrl.training.checkpoints import RunDir
from segrl.training.distributed import launch
from segrl.training.parts import Parts
from segrl.training.recipe import eval_settings
from segrl.training.reward_check import ensure_reward

Say = Callable[[str], None]
Watch = Callable[[str], OnWindow]
"""Given the name of a stage, what watches its evaluation."""


@dataclass(frozen=True)
class Improvement:
    """A finished run: its report, the numbers of summary.json, where the trained policy lies, and whether it was
    measured on what it was trained on."""

    report_path: Path
    summary: dict[str, Any]
    model_dir: Path
    overlap: Overlap | None = None


def improve(
    recipe: Recipe, out: Path | str, *, processes: int = 1, say: Say = print, watch: Watch | None = None
) -> Improvement:
    """`Experiment(recipe, out).run()`; processes, say and watch as there."""
    return Experiment(recipe, out, processes=processes, say=say, watch=watch).run()


class Experiment:
    """A recipe and the directory in which it is run: evaluate (if it has an `evaluation`), train, evaluate, report.

    parts: the recipe's data, segmenter and processor, opened once for all of it. processes: on how many of this
    machine to train; measuring takes one. say: where one-line messages go.
    """

    def __init__(
        self, recipe: Recipe, out: Path | str, *, processes: int = 1, say: Say = print, watch: Watch | None = None
    ) -> None:
        self.recipe, self.parts, self.processes = recipe, Parts(recipe), processes
        self.directory, self._say, self._watch = RunDir(Path(out)), say, watch

    def run(self) -> Improvement:
        """Does all that is not done there already, so the same call goes on after an interruption.

        Raises SegrlError for what the user can put right, before anything long has begun where that can be known.
        """
        self._claim()
        run = EvaluatedRun(self.directory.path)
        ensure_reward(self.parts, self.directory, self._say)
        self._measure(self.recipe.policy.path, run.before_dir, "before")
        self._compare_examples(run)
        trained = self._train()
        self._measure(str(trained.model_dir), run.after_dir, "after")
        if self.recipe.evaluation is not None:
            self._keep_pictures(run)
        report_path = write_report(run.path)
        summary = json.loads(run.summary_path.read_text(encoding="utf-8"))
        return Improvement(report_path, summary, trained.model_dir, read_overlap(run.overlap_path))

    def _claim(self) -> None:
        """Make the directory this recipe's, and refuse what is wrong with the recipe before the first evaluation."""
        from segrl.training.options import build_config, prepare_vllm

        _ = self.parts.examples, self.parts.eval_examples
        make_directory(self.directory.path)
        self.directory.claim(self.recipe)
        if self.processes == 1 and not self.directory.finished.exists():  # batch sizes for several may not fit one
            config = build_config(self.recipe, self.directory.checkpoints, say=lambda line: None)
            if self.recipe.trainer.get("use_vllm"):
                prepare_vllm(config, self.parts.policy.settings.input_wh, self.parts.policy.processor)

    def _train(self) -> TrainResult:
        if self.processes == 1:
            return train(self.parts, self.directory.path, say=self._say)
        self.parts.release_segmenter()  # the processes want the memory
        return launch(self.recipe, self.directory.path, self.processes, say=self._say)

    def _measure(self, policy: str, directory: EvalDir, stage: str) -> None:
        """Evaluate the policy in `policy` if the recipe has an evaluation, unless that is done already."""
        if self.recipe.evaluation is None:
            return
        if directory.is_finished:
            self._say(f"measured {stage} training already: {directory.path}")
            return
        measure(self.parts, policy, directory.path, self._watch(stage) if self._watch else None, say=self._say)

    def _compare_examples(self, run: EvaluatedRun) -> None:
        """Write down whether the measured examples are trained on, and say it loudly if they are."""
        if self.recipe.evaluation is None:
            return
        if run.overlap is None:
            trained, n = self.parts.examples, len(run.before)
            same = trained is self.parts.eval_examples
            write_overlap(Overlap(n, n, n, n) if same else overlap(trained, run.before), run.overlap_path)
        found = read_overlap(run.overlap_path)
        if found is not None and found.warning:
            self._say(f"WARNING: {found.warning}")

    def _keep_pictures(self, run: EvaluatedRun) -> None:
        """Save the pictures of the examples that the report shows."""
        shown = {pair.before.id for group in chosen(run) for pair in group.pairs}
        examples = [self.parts.eval_examples[i] for i, record in enumerate(run.before) if record.id in shown]
        run.save_images({example.image_id: example.image for example in examples})


def measure(
    parts: Parts, policy: str, out: Path | str, on_window: OnWindow | None = None, *, say: Say = print
) -> EvalDir:
    """The recipe's evaluation of a policy, in the directory `out`, as `segrl eval` makes one.

    policy: the recipe's own, or one that was trained from it, whose processor is the same. What was begun in `out`
    with other settings (another version of a package, another machine) is begun again; raises DataError if it was
    finished with other settings.
    """
    loaded = load(
        eval_settings(parts.recipe, policy),
        examples=parts.eval_examples,
        segmenter=parts.segmenter,
        processor=parts.policy.processor,
    )
    directory = EvalDir(Path(out))
    if directory.run.exists() and not directory.is_finished and (other := directory.differences(describe(loaded))):
        say(f"{directory.path} was begun with other settings ({'; '.join(other)}): it is measured anew")
        shutil.rmtree(directory.path)
    run_evaluation(loaded, directory.path, share=Share(), on_window=on_window)
    return directory
