"""Text, JSON and YAML that people and other programs wrote: encodings, byte-order marks, depth, anchors.

Whatever stands in such a file, reading it ends in plain values or in one line that names it.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.errors import DataError
from segrl.text import first_line

if TYPE_CHECKING:
    import yaml

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
