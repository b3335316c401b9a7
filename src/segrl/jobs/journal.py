"""What is finished of a job: rows in an append-only file, and the settings that they were made with.

A row is written in one piece and is on the disk before `add` returns. A process that is killed leaves at most a
last line without its end, which readers pass over and the next writer cuts off. So whatever stands in the file
is finished, and whatever does not is done again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from segrl.errors import DataError, SegrlError
from segrl.files import append_rows, cut_partial_line
from segrl.text import differences

Row = dict[str, Any]

PATIENCE_S = 2.0
"""How long to wait for a lock: the helpers of a killed process need a moment to notice."""


class Journal:
    """The rows of a JSON Lines file by key; a later row takes an earlier one's place.

    Holds the places of the lines, not the rows. path: where rows are added; None reads `others` alone. key: of a row;
    None for one that only makes others void. note: what else is held of a row (`notes`). voids: keys of the rows
    before it that a row makes void. others: files that are read as well. sync_s: seconds that may pass until rows are
    on the disk; rows that are lost with the power are done again. Raises DataError for a line that is no row.
    """

    def __init__(
        self,
        path: Path | None,
        key: Callable[[Row], Any],
        *,
        note: Callable[[Row], Any] | None = None,
        voids: Callable[[Row], Iterable[Any]] = lambda row: (),
        others: Iterable[Path] = (),
        sync_s: float = 0.0,
    ) -> None:
        self._path, self._key, self._note, self._voids = path, key, note, voids
        self._places: dict[Any, tuple[Path, int]] = {}
        self.notes: dict[Any, Any] = {}
        self._sync_s, self._synced = sync_s, time.monotonic()
        if path is not None:
            cut_partial_line(path)
        for file in others if path is None else (*others, path):
            self._index(file)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[Any]:
        """The keys, in the order in which they were finished first."""
        return iter(self._places)

    def get(self, key: Any) -> Row | None:
        """The row of that key; None if it is not finished."""
        return next(self.rows([key])) if key in self._places else None

    def rows(self, keys: Iterable[Any]) -> Iterator[Row]:
        """The rows of keys that are finished; each file is opened once. Raises KeyError for one that is not."""
        with ExitStack() as stack:
            files: dict[Path, BinaryIO] = {}
            for key in keys:
                path, place = self._places[key]
                if path not in files:
                    files[path] = stack.enter_context(path.open("rb"))
                files[path].seek(place)
                yield _row(files[path].readline(), path)

    def add(self, *rows: Row, remember: bool = True) -> None:
        """Appends rows in one write. remember: whether they can be asked for. Raises SegrlError for a full disk."""
        assert self._path is not None, "a journal without a path is read"
        place = self._path.stat().st_size if self._path.exists() else 0
        is_due = time.monotonic() - self._synced >= self._sync_s
        append_rows(self._path, rows, sync=is_due)
        self._synced = time.monotonic() if is_due else self._synced
        if remember:
            self._index(self._path, place)

    def _index(self, file: Path, start: int = 0) -> None:
        """Notes the places of the rows from byte `start` on."""
        for place, row in _lines(file, start):
            try:
                for gone in self._voids(row):
                    self._places.pop(gone, None)
                    self.notes.pop(gone, None)
                key = self._key(row)
                if key is not None:
                    self._places[key] = (file, place)
                    if self._note is not None:
                        self.notes[key] = self._note(row)
            except (KeyError, TypeError, ValueError) as error:
                raise _no_record(file, repr(error)) from error


def _lines(path: Path, start: int = 0) -> Iterator[tuple[int, Row]]:
    """(place, row) of each whole line from `start` on; none without the file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        place = file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield place, _row(line, path)
            place += len(line)


def _row(line: bytes, path: Path) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _no_record(path, str(error)) from error
    if not isinstance(row, dict):
        raise _no_record(path, "not an object")
    return row


def _no_record(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} holds a line that is no record ({why}): an earlier version or another program wrote it; "
        "remove that file to begin again"
    )


def check_settings(folder: Path, theirs: Any, ours: Mapping[str, Any], holds: str) -> None:
    """Raises SegrlError naming each value in which the settings of a folder differ from `ours`.

    holds: what the folder has, for the message.
    """
    differing = [f"{name}: {there!r:.60} there, {now!r:.60} now" for name, there, now in differences(theirs, ours)]
    if differing:
        raise SegrlError(f"{folder} holds {holds} with other settings ({'; '.join(differing)}): choose another --out")


def read_settings(path: Path) -> dict[str, Any]:
    """A file of settings. Raises DataError if it is not there or holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no settings")
    return found


@contextmanager
def locked(path: Path, out: Path | str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """The block runs in one process at a time; `path` is the lock's file. Raises DataError naming `out`, which another
    process writes to, or with a message of one's own, out of patience.

    The lock ends with the process, however it ends.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise SegrlError(f"cannot write {path}: {error.strerror}") from error
    with file:
        busy = f"{out} is being written by another process: wait for it, or choose another --out"
        lock(file, out if isinstance(out, str) else busy, patience_s)
        yield


def lock(file: BinaryIO, message: str, patience_s: float = PATIENCE_S) -> None:
    """Takes the file until it is closed, also by a process's death. Raises DataError(message) if others keep it."""
    if sys.platform == "win32":  # no flock there: two jobs in one directory are the user's to avoid
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
