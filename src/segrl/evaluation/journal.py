"""Finished examples on disk while an evaluation runs: a journal (`segrl.jobs`) per process, one line per example.

    journal/0.lines    {"place": 17, "id": "…", …}    the example's place in the data set, and its record

A window's lines are written at once. What is whole stays; a window of which any line is missing is answered again,
and the later line counts. When all examples are there, the lines become `records.jsonl` in the order of the data set,
written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segrl.files import json_line, make_directory, write_atomically
from segrl.jobs.journal import Journal, Row, locked

PATIENCE_S = 20.0
"""How long to wait for a lock: the helpers of a killed process need a moment to notice."""

LONG_PATIENCE_S = 600.0
"""How long to wait for somebody who writes the result of a large data set."""

SYNC_S = 1.0
"""Scripted answers come by the thousand in a second; a disk takes a hundred writes to its end."""


@contextmanager
def writing(path: Path, patience_s: float = PATIENCE_S) -> Iterator[Journal]:
    """All that is finished, and where `path` is added to, which no other process can write to meanwhile.

    Raises DataError if another one holds it.
    """
    make_directory(path.parent)
    busy = f"{path.parent.parent} is being written by another process: wait for it, or choose another --out"
    with locked(path, busy, patience_s):
        others = [file for file in _files(path.parent) if file != path]
        yield Journal(path, _place, others=others, sync_s=SYNC_S)


def lines(folder: Path) -> Journal:
    """Every whole line of the journal files in `folder`, by the example's place; none without the folder."""
    return Journal(None, _place, others=_files(folder))


def merge(folder: Path, n: int, target: Path) -> bool:
    """Writes the records of all `n` examples to `target` in order and removes the journal; False if one is missing."""
    found = lines(folder)
    if any(place not in found for place in range(n)):
        return False
    write_atomically(target, (json_line(_record(row)) for row in found.rows(range(n))))
    remove(folder)
    return True


def remove(folder: Path) -> None:
    """Removes a journal that is no longer needed."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.lines"))


def _place(row: Row) -> int:
    return int(row["place"])


def _record(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "place"}
