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

MOST_VALUES = 1_000_000
"""Values that a YAML text may hold once its anchors are followed; a text of a kilobyte can name billions."""

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

    Raises yaml.YAMLError for what is no YAML, and ValueError for nesting that is too deep, for anchors that
    hold themselves, and for more than MOST_VALUES values once anchors are followed.
    """
    import yaml

    opened = (loader or yaml.SafeLoader)(text)
    try:
        node = opened.get_single_node()
        if node is None:
            return None
        _count(node, {}, set())
        return opened.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    finally:
        opened.dispose()


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file. Raises DataError naming it as `read_text` does, and for what `load_yaml` refuses."""
    import yaml

    try:
        return load_yaml(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"cannot read {path}: it is no YAML: {first_line(error)}") from error


def _count(node: Any, counted: dict[int, int], above: set[int]) -> int:
    """Values under a node, those of an anchor as often as it is named. Raises ValueError above MOST_VALUES."""
    if id(node) in above:
        raise ValueError("an anchor holds itself")
    if id(node) not in counted:
        children = node.value if isinstance(node.value, list) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        above.add(id(node))
        counted[id(node)] = 1 + sum(_count(child, counted, above) for child in flat)
        above.discard(id(node))
    if counted[id(node)] > MOST_VALUES:
        raise ValueError(f"its anchors make more than {MOST_VALUES} values")
    return counted[id(node)]
