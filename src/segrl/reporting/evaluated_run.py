"""The files of a run that a report reads, beside those of `segrl.training.checkpoints`; each may be missing.

evaluation/before/         the policy before training, as `segrl eval` keeps an evaluation (`segrl.evaluation.run_dir`)
evaluation/after/          the same examples after it
evaluation/overlap.json    whether the measured examples were trained on (`segrl.evaluation.overlap`)
evaluation/images/         pictures of the examples that the report shows (`segrl.training.checkpoints`)
summary.json, report.html  what `segrl.reporting` makes of them
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from segrl.errors import DataError
from segrl.evaluation import EvalDir, EvalRecord, Overlap, read_jsonl
from segrl.evaluation.overlap import read_overlap
from segrl.evaluation.result import summary_of
from segrl.files import Below, read_rows
from segrl.training.checkpoints import Pictures, RunDir, refuse_old_layout


@dataclass(frozen=True)
class EvaluatedRun:
    """Paths and contents of one run. Reading a file that is there but unreadable raises DataError."""

    path: Path

    overlap_path = Below("evaluation/overlap.json")
    report_path, summary_path = Below("report.html"), Below("summary.json")

    @property
    def before_dir(self) -> EvalDir:
        """The evaluation before training."""
        return EvalDir(self.path / "evaluation" / "before")

    @property
    def after_dir(self) -> EvalDir:
        """The evaluation after training."""
        return EvalDir(self.path / "evaluation" / "after")

    @cached_property
    def overlap(self) -> Overlap | None:
        """Whether the measured examples were trained on; None where nobody compared them."""
        return read_overlap(self.overlap_path)

    @property
    def _training(self) -> RunDir:
        return RunDir(self.path)

    @cached_property
    def recipe_text(self) -> str:
        """The resolved recipe as it stands in the file; empty without one."""
        path = self._training.recipe
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe as plain values; empty without one."""
        try:
            return yaml.safe_load(self.recipe_text) or {}
        except yaml.YAMLError as error:
            raise DataError(f"{self._training.recipe} is no valid YAML") from error

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """The training log in order of steps; rows without a step are left out."""
        return sorted((row for row in _rows(self._training.steps) if "step" in row), key=lambda row: row["step"])

    @cached_property
    def before(self) -> list[EvalRecord]:
        """Records from before training; empty if it was not measured."""
        return read_jsonl(self.before_dir.records) if self.before_dir.is_finished else []

    @cached_property
    def after(self) -> list[EvalRecord]:
        """Records from after training; empty if it was not measured."""
        return read_jsonl(self.after_dir.records) if self.after_dir.is_finished else []

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage by name (before, training, after), those that have begun."""
        found = {"training": sum(row["seconds"] for row in self.steps if "seconds" in row)}
        for stage, directory in (("before", self.before_dir), ("after", self.after_dir)):
            found[stage] = summary_of(directory)["speed"]["seconds"] if directory.is_finished else 0.0
        return {stage: round(found[stage], 3) for stage in ("before", "training", "after") if found[stage]}

    @property
    def pictures(self) -> Pictures:
        """Pictures of the measured examples that the page shows."""
        return Pictures(self.path / "evaluation" / "images")

    @property
    def rollout_pictures(self) -> Pictures:
        """Pictures of the logged groups."""
        return Pictures(self._training.pictures)

    @cached_property
    def rollouts(self) -> list[dict[str, Any]]:
        """The logged groups in order of steps."""
        return sorted(_rows(self._training.rollouts), key=lambda row: (row["step"], row["group"]))

    @cached_property
    def reward_check(self) -> dict[str, Any] | None:
        """The table of the reward check, as `segrl.training.reward_check` writes it; None where there was none."""
        path = self._training.reward_check
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def save_images(self, images: Mapping[str, Image.Image]) -> None:
        """Keep the pictures of the measured examples that the report will show."""
        for image_id, image in images.items():
            self.pictures.save(image_id, image)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path)
    except ValueError as error:
        raise DataError(f"{path} does not hold one JSON object per line: {error}") from error


def require_run(path: Path) -> EvaluatedRun:
    """The run in `path`. Raises DataError unless it holds a training log or an evaluation."""
    run = EvaluatedRun(path)
    refuse_old_layout(path)
    if not (RunDir(path).steps.exists() or run.before_dir.is_finished or run.after_dir.is_finished):
        raise DataError(f"{path} holds no run: neither steps.jsonl nor evaluation/ is there (segrl train writes both)")
    return run


AT_RANDOM = 6
LARGEST = 4


@dataclass(frozen=True)
class Pair:
    """One example before and after training."""

    before: EvalRecord
    after: EvalRecord

    @property
    def gain(self) -> float:
        """IoU after minus IoU before."""
        return self.after.iou - self.before.iou


@dataclass(frozen=True)
class Group:
    """Pairs shown together under one heading."""

    title: str
    note: str
    pairs: tuple[Pair, ...]


def choose(before: Sequence[EvalRecord], after: Sequence[EvalRecord], *, seed: int = 0) -> list[Group]:
    """Groups of pairs without repeats, empty groups left out; both sequences hold the same examples in order.

    The first group is drawn at random, kinds of query in turn, before the others, so that it is not
    biased; gains and losses come from the remaining pairs, each kind once before any twice.
    """
    pairs = [Pair(*both) for both in zip(before, after, strict=True)]
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    drawn = _kinds_in_turn(shuffled, AT_RANDOM)
    rest = [pair for pair in pairs if not any(pair is other for other in drawn)]
    gained = _kinds_in_turn(sorted((p for p in rest if p.gain > 0), key=lambda p: -p.gain), LARGEST)
    lost = _kinds_in_turn(sorted((p for p in rest if p.gain < 0), key=lambda p: p.gain), LARGEST)
    groups = [
        Group("Drawn at random", f"Seed {seed}, kinds of query in turn; not selected by result.", tuple(drawn)),
        Group("Largest gains", "The most improved examples, kinds of query in turn.", tuple(gained)),
        Group("Largest losses", "What became worse, kinds of query in turn.", tuple(lost)),
    ]
    return [group for group in groups if group.pairs]


def _kinds_in_turn(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The first `count` pairs when every kind has one before any has two, in the order given otherwise."""
    seen: dict[str | None, int] = {}
    rounds = []
    for position, pair in enumerate(pairs):
        turn = seen.get(pair.before.kind, 0)
        seen[pair.before.kind] = turn + 1
        rounds.append((turn, position, pair))
    return [pair for _, _, pair in sorted(rounds, key=lambda row: row[:2])[:count]]
