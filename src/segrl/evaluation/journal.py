"""Finished examples on disk while an evaluation runs: one file per process, one line per example.

    journal/0.lines    17⇥{"id": "…", …}⏎    the example's place, a tab, its record as JSON

A window's lines are written at once. A process that is killed leaves at most a last line without its
end, which readers pass over and the next writer cuts off. What is whole stays; a window of which any line
is missing is answered again, and the later line counts. When all examples are there, the lines become
`records.jsonl` in the order of the data set, written whole or not at all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from segrl.errors import DataError
from segrl.evaluation.records import EvalRecord
from segrl.files import ESCAPED, json_line, write_atomically

PATIENCE_S = 20.0
"""How long to wait for a lock: the helpers of a killed process need a moment to notice."""

LONG_PATIENCE_S = 600.0
"""How long to wait for somebody who writes the result of a large data set."""


@dataclass(frozen=True)
class Line:
    """Where one example's record stands: bytes `start` to `end` of a file, without its place in front."""

    path: Path
    start: int
    end: int


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A writer that goes on behind the last whole line of `path`, which no other process can write to meanwhile.

    Raises DataError if another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        lock(file, f"{path.parent.parent} is being written by another process: wait for it, or choose another --out")
        file.truncate(_end_of_whole_lines(file))
        yield Writer(file)


@dataclass(frozen=True)
class Writer:
    """An open journal file."""

    file: BinaryIO

    def add(self, places: Sequence[int], records: Sequence[EvalRecord]) -> None:
        """Adds the records of a window, which stand at `places` of the data set, in one write."""
        lines = (f"{place}\t{json_line(record.to_json())}" for place, record in zip(places, records, strict=True))
        data = memoryview("".join(lines).encode(errors=ESCAPED))
        while data:
            data = data[self.file.write(data) :]


@contextmanager
def locked(path: Path, message: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """The block runs in one process at a time; `path` is the lock's file. Raises DataError(message) out of patience."""
    with path.open("ab") as file:
        lock(file, message, patience_s)
        yield


def lock(file: BinaryIO, message: str, patience_s: float = PATIENCE_S) -> None:
    """Takes the file until it is closed, also by a process's death. Raises DataError(message) if others keep it."""
    if sys.platform == "win32":  # no flock there: two evaluations in one directory are the user's to avoid
        return
    import fcntl

    give_up = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise DataError(message) from error
            time.sleep(0.05)


def lines(folder: Path) -> dict[int, Line]:
    """Every whole line of the journal files in `folder`, by the example's place; none without the folder."""
    found: dict[int, Line] = {}
    for path in sorted(folder.glob("*.lines")):
        with path.open("rb") as file:
            start = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                place = _place(line, path)
                found[place] = Line(path, start + line.index(b"\t") + 1, start + len(line))
                start += len(line)
    return found


def _place(line: bytes, path: Path) -> int:
    place, tab, _ = line.partition(b"\t")
    if not tab or not place.isdigit():
        raise DataError(f"{path} holds a line that is no record: remove the file, and its examples are answered again")
    return int(place)


def merge(folder: Path, n: int, target: Path) -> bool:
    """Writes the records of all `n` examples to `target` in order and removes the journal; False if one is missing."""
    found = lines(folder)
    if any(place not in found for place in range(n)):
        return False
    files: dict[Path, BinaryIO] = {path: path.open("rb") for path in {line.path for line in found.values()}}
    try:
        write_atomically(target, (_text(files, found[place]) for place in range(n)))
    finally:
        for file in files.values():
            file.close()
    remove(folder)
    return True


def remove(folder: Path) -> None:
    """Removes a journal that is no longer needed."""
    for path in folder.glob("*.lines"):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _text(files: dict[Path, BinaryIO], line: Line) -> str:
    file = files[line.path]
    file.seek(line.start)
    return file.read(line.end - line.start).decode()


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Bytes up to and with the last line end."""
    size = file.seek(0, 2)
    end = size
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
