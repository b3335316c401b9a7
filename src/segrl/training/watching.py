"""Says while a GRPO run goes on what is wrong with it (`segrl.training.diagnosis`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from segrl.files import read_rows
from segrl.training.callbacks import plain
from segrl.training.checkpoints import RunDir
from segrl.training.diagnosis import GroupFacts, diagnose, facts

EVERY_ROWS = 5
"""After how many logged steps the logs are looked at again."""


class Watching(TrainerCallback):
    """One line for each finding when it appears, with its evidence and what to change.

    Comes after the step log. A finding that goes and comes again is said again.
    """

    def __init__(self, run: RunDir, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._groups: list[GroupFacts] = []
        self._read_to = 0
        self._known: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._rows = read_rows(self._run.steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not state.is_world_process_zero or "train_runtime" in logs:
            return
        self._rows.append({"step": state.global_step} | {key: plain(value) for key, value in logs.items()})
        if len(self._rows) % EVERY_ROWS == 0:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        self._groups += self._new_groups(self._run.rollouts)
        findings = diagnose(self._rows, self._groups)
        for finding in findings:
            if finding.name not in self._known:
                self._say(f"step {step}: {finding.title}. {finding.evidence} {finding.advice}")
        self._known = {finding.name for finding in findings}

    def _new_groups(self, path: Path) -> list[GroupFacts]:
        """The groups that were logged since the last look."""
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read_to)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read_to += sum(map(len, whole))
        return [facts(json.loads(line)) for line in whole]
