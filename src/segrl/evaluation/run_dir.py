"""An evaluation's directory: whose it is, how far it came, and what came of it.

run.json          all that determines the result (`segrl.evaluation.settings.describe`), written first
journal/          finished examples while it runs
sessions.jsonl    when each process worked, on how many examples, and its peak memory
records.jsonl     one record per example, in the order of the data set, once all are there
metrics.json      every metric with its interval, slices, variants, failures; depends on the records alone
summary.json      the same with run.json and the speed
general.json      the model's general ability, where `segrl suite` measured it
report.html       the page, with evaluation/images/ for its pictures

The journal (`segrl.jobs`) has a file per process and a line per example, `{"place": 17, "id": "…", …}`: the example's
place in the data set, and its record. A window's lines are written at once. What is whole stays; a window of which any
line is missing is answered again, and the later line counts. When all examples are there, the lines become
`records.jsonl` in the order of the data set, written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrl.errors import DataError
from segrl.files import Below, json_line, make_directory, write_atomically
from segrl.jobs.journal import Journal, Row, locked
from segrl.text import differences

PATIENCE_S = 20.0
"""How long to wait for a lock: the helpers of a killed process need a moment to notice."""

LONG_PATIENCE_S = 600.0
"""How long to wait for somebody who writes the result of a large data set."""

SYNC_S = 1.0
"""Scripted answers come by the thousand in a second; a disk takes a hundred writes to its end."""


@contextmanager
def open_journal(path: Path, patience_s: float = PATIENCE_S) -> Iterator[Journal]:
    """All that is finished, and where `path` is added to, which no other process can write to meanwhile.

    Raises DataError if another one holds it.
    """
    make_directory(path.parent)
    with locked(path, path.parent.parent, patience_s):
        others = [file for file in _files(path.parent) if file != path]
        yield Journal(path, _place, others=others, sync_s=SYNC_S)


def read_journal(folder: Path) -> Journal:
    """Every whole line of the journal files in `folder`, by the example's place; none without the folder."""
    return Journal(None, _place, others=_files(folder))


def merge_journal(folder: Path, n: int, target: Path) -> bool:
    """Writes the records of all `n` examples to `target` in order and removes the journal; False if one is missing."""
    found = read_journal(folder)
    if any(place not in found for place in range(n)):
        return False
    records = ({key: value for key, value in row.items() if key != "place"} for row in found.rows(range(n)))
    write_atomically(target, map(json_line, records))
    remove_journal(folder)
    return True


def remove_journal(folder: Path) -> None:
    """Removes a journal that is no longer needed."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.lines"))


def _place(row: Row) -> int:
    return int(row["place"])


@dataclass(frozen=True)
class EvalDir:
    """Paths of one evaluation."""

    path: Path

    run, journal, sessions = Below("run.json"), Below("journal"), Below("sessions.jsonl")
    records, metrics, summary = Below("records.jsonl"), Below("metrics.json"), Below("summary.json")
    report, lock = Below("report.html"), Below(".lock")

    @property
    def baseline(self) -> EvalDir:
        """The evaluation of the query sent as it is, where there is one."""
        return EvalDir(self.path / "baseline")

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
        with locked(self.lock, self.path, PATIENCE_S):
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
