"""Reading files that people wrote, and writing files that are whole or not there, whatever ends the process.

What is written goes to a hidden file beside its place, to the disk, and only then takes its name; the
directory follows, so that a power cut loses nothing that was said to be done. A disk that is full, read-only
or gone raises SegrlError with one line that names the file.

What is read (text, JSON, YAML; any encoding, byte-order mark, depth, anchors) ends in plain values or in one line that
names the file.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from segrl.errors import DataError, SegrlError
from segrl.text import first_line

if TYPE_CHECKING:
    import yaml
    from PIL import Image


ESCAPED = "backslashreplace"
"""How half a surrogate pair is encoded, which UTF-8 cannot: as JSON spells it."""

LONGEST_SUFFIX = 10
"""Characters of a suffix that a library may need to see in the name of a file it writes to."""


def legible(text: str) -> str:
    """Text that every encoding takes: half a surrogate pair (a byte of a file's name that is no UTF-8) is escaped."""
    return text.encode(errors=ESCAPED).decode()


class Below:
    """What a class of directories has at a name: `steps = Below("steps.jsonl")` is the file of that name in `path`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, directory: Any, kind: type | None = None) -> Path:
        return Path(directory.path) / self._name


def make_directory(path: Path) -> None:
    """Makes `path` and what is missing above it, unless it is there; raises SegrlError if it cannot be written."""
    try:
        _make(path)
    except OSError as error:
        raise SegrlError(f"cannot make the directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise SegrlError(f"cannot write to the directory {path}: choose another place, or change its permissions")


def write_bytes(path: Path, data: bytes, mark: str = "") -> None:
    """`data` under `path`, whole or not at all. Folders that are missing are made. mark: see `replacing`."""
    with replacing(path, mark) as part:
        part.write_bytes(data)


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """`text`, or its pieces one after the other, under `path`: whole or not at all, whenever the process dies.

    Half a surrogate pair (in a file name that is no UTF-8, in what a server sends) is written as an escape.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", errors=ESCAPED) as file:
        file.writelines([text] if isinstance(text, str) else text)


def write_image(path: Path, image: Image.Image, mark: str = "", **options: Any) -> None:
    """`image` in the format that the suffix of `path` names, whole or not at all. options: of Pillow's `save`.

    The file is made in memory: Pillow does not notice when a full disk takes a part of what it writes.
    """
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.init()
    image.save(file, Pillow.EXTENSION[path.suffix.lower()], **options)
    write_bytes(path, file.getvalue(), mark)


@contextmanager
def replacing(path: Path, mark: str = "") -> Iterator[Path]:
    """A hidden path of the same suffix to write to, which takes the place of `path` if the block ends well.

    Folders that are missing are made. mark: sets apart processes that may write the same file at once.
    Raises SegrlError where the file cannot be written.
    """
    with _told(path):
        _make(path.parent)
        part = path.with_name(_part_name(path, mark))
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
            _sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)


def _part_name(path: Path, mark: str) -> str:
    """Of bounded length: what stands beside a name of 255 bytes has no room for more."""
    suffix = path.suffix if len(path.suffix) <= LONGEST_SUFFIX else ""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{mark}.part{suffix}"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """An error of the system about `path` as one line."""
    try:
        yield
    except OSError as error:
        raise SegrlError(f"cannot write {path}: {error.strerror or error}") from error


def _make(folder: Path) -> None:
    """Makes a folder and what is missing above it; each new name is on the disk before this returns."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_directory(folder.parent)


def _sync_directory(folder: Path) -> None:
    """Puts the names in a folder on the disk. Windows has no such call."""
    if sys.platform == "win32":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def json_line(row: Mapping[str, Any]) -> str:
    """One line of a JSON Lines file."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Adds rows in one write, and (sync) puts them on the disk. Raises SegrlError where that fails."""
    data = memoryview("".join(map(json_line, rows)).encode(errors=ESCAPED))
    with _told(path):
        is_new = not path.exists()
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            if sync:
                os.fsync(file.fileno())
        if is_new:
            _sync_directory(path.parent)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; none without the file. A last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def cut_partial_line(path: Path) -> None:
    """Cuts off a last line that was not written to its end, so that rows can be appended; nothing without the file."""
    if path.exists():
        with _told(path), path.open("rb+") as file:
            end = _end_of_whole_lines(file)
            if end < file.seek(0, io.SEEK_END):
                file.truncate(end)


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Bytes up to and with the last line end."""
    end = file.seek(0, io.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


MAX_DEPTH, MAX_VALUES = 50, 100_000
"""How deep the lists and mappings of a YAML text may go, and how many values it may hold, aliases written out."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path, *encodings: str) -> str:
    """The text of a file: by its byte-order mark, else in the first of `encodings` (utf-8 without any) that fits.

    Raises DataError naming the file if it is missing or no text.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        raise DataError(f"cannot read {path}: {error}") from error
    marked = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), None)
    tried = (marked,) if marked else encodings or ("utf-8",)
    for encoding in tried:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"cannot read {path}: it is text in none of {', '.join(tried)}")


def read_json(path: Path, *encodings: str) -> Any:
    """The contents of a JSON file; see `read_text`. Raises DataError naming the file if it is missing or no JSON."""
    return parse_json(read_text(path, *encodings), f"cannot read {path}:")


def parse_json(text: str, name: str) -> Any:
    """What a JSON text says. Raises DataError in one line that begins with `name`; nesting has a limit."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{name} it is nested too deeply") from error
    except ValueError as error:  # a number of 5,000 digits is one too
        raise DataError(f"{name} it is no JSON: {first_line(error)}") from error


def load_yaml(text: str, loader: type[yaml.SafeLoader] | None = None) -> Any:
    """What a YAML text says, in plain values; loader: a SafeLoader with resolvers of its own.

    Raises yaml.YAMLError for what is no YAML and ValueError beyond MAX_DEPTH and MAX_VALUES.
    """
    import yaml

    chosen = loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    _check_size(text, chosen)
    return yaml.load(text, Loader=chosen)  # noqa: S506  # a SafeLoader


def _check_size(text: str, loader: type[yaml.SafeLoader]) -> None:
    """Raises ValueError beyond MAX_DEPTH and MAX_VALUES, before anything is built."""
    import yaml

    sizes: dict[str, int] = {}  # of each anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the values before it
    values = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} stands before its anchor, or inside it")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: values - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if len(open_nodes) > MAX_DEPTH or values > MAX_VALUES:
            raise ValueError(f"more than {MAX_DEPTH} levels or {MAX_VALUES:,} values, its aliases written out")


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file. Raises DataError naming it as `read_text` does, and for what `load_yaml` refuses."""
    import yaml

    try:
        return load_yaml(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"cannot read {path}: it is no YAML: {first_line(error)}") from error
