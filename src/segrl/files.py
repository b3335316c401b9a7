"""Files that a killed process leaves whole: text, JSON Lines, and any other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segrl.errors import SegrlError

ESCAPED = "backslashreplace"
"""How half a surrogate pair is encoded, which UTF-8 cannot: as JSON spells it."""


def legible(text: str) -> str:
    """Text that every encoding takes: half a surrogate pair (a byte of a file's name that is no UTF-8) is escaped."""
    return text.encode(errors=ESCAPED).decode()


def make_directory(path: Path) -> None:
    """Makes `path` and what is missing above it, unless it is there; raises SegrlError if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SegrlError(f"cannot make the directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise SegrlError(f"cannot write to the directory {path}: choose another place, or change its permissions")


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """`text`, or its pieces one after the other, under `path`: whole or not at all, whenever the process dies.

    Half a surrogate pair (in a file name that is no UTF-8, in what a server sends) is written as an escape.
    """
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", errors=ESCAPED) as file:
        for piece in [text] if isinstance(text, str) else text:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def replacing(path: Path, mark: str = "") -> Iterator[Path]:
    """A hidden path of the same suffix to write to, which takes the place of `path` if the block ends well.

    Folders that are missing are made. mark: sets apart processes that may write the same file at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}{mark}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def json_line(row: Mapping[str, Any]) -> str:
    """One line of a JSON Lines file."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows in one write."""
    with path.open("a", encoding="utf-8", errors=ESCAPED) as file:
        file.write("".join(json_line(row) for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; none without the file. A last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def cut_partial_line(path: Path) -> None:
    """Cuts off a last line that was not written to its end, so that rows can be appended; nothing without the file."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
