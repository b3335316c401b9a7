"""An evaluation's directory: whose it is, how far it came, and what came of it.

run.json          all that determines the result (`segrl.evaluation.settings.describe`), written first
journal/          finished examples while it runs (`segrl.evaluation.journal`)
sessions.jsonl    when each process worked, on how many examples, and its peak memory
records.jsonl     one record per example, in the order of the data set, once all are there
metrics.json      every metric with its interval, slices, variants, failures; depends on the records alone
summary.json      the same with run.json and the speed
general.json      the model's general ability, where `segrl suite` measured it
report.html       the page, with evaluation/images/ for its pictures
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.errors import DataError
from segrl.evaluation.journal import PATIENCE_S
from segrl.files import make_directory, write_atomically
from segrl.jobs.journal import locked
from segrl.options import differences


@dataclass(frozen=True)
class EvalDir:
    """Paths of one evaluation."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def sessions(self) -> Path:
        return self.path / "sessions.jsonl"

    @property
    def records(self) -> Path:
        return self.path / "records.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def is_finished(self) -> bool:
        """Whether all its examples have been answered."""
        return self.run.exists() and self.records.exists()

    @property
    def has_page(self) -> bool:
        """Whether the page is there and tells of the result: one that `segrl suite` left before it is older."""
        return self.report.exists() and self.report.stat().st_mtime_ns >= self.summary.stat().st_mtime_ns

    def claim(self, description: Mapping[str, Any]) -> None:
        """Makes the directory this evaluation's, or finds that it is already.

        Raises DataError, naming what differs, if it holds one made with other settings, SegrlError if it
        cannot be written.
        """
        make_directory(self.path)
        busy = f"{self.path} is held by another process: wait for it, or choose another --out"
        with locked(self.lock, busy, PATIENCE_S):
            if not self.run.exists():
                self.describe(description)
        if differing := self.differences(description):
            raise DataError(
                f"{self.path} holds an evaluation with other settings ({'; '.join(differing)}): choose another --out"
            )

    def differences(self, description: Mapping[str, Any]) -> list[str]:
        """What is different in run.json from `description`, `key: value there, value now`."""
        return [
            f"{name}: {theirs!r:.60} there, {ours!r:.60} now"
            for name, theirs, ours in differences(self.description(), description)
        ]

    def describe(self, description: Mapping[str, Any]) -> None:
        """Writes run.json, whatever was there."""
        make_directory(self.path)
        write_atomically(self.run, json.dumps(description, indent=2, ensure_ascii=False) + "\n")

    def description(self) -> dict[str, Any]:
        """What run.json says. Raises DataError if it is not there or no JSON."""
        try:
            found = json.loads(self.run.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{self.path} holds no evaluation: run.json is not there (segrl eval writes it)") from error
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {self.run}: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{self.run} is no description of an evaluation")
        return found
