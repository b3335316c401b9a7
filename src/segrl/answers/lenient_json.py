"""One literal as models write it, in time linear in its length.

JSON and Python's literals of lists, tuples, dicts, numbers, strings and constants, with what models
add: Markdown fences, trailing commas, leading zeros, plus signs, single quotes. Nothing is
evaluated and nothing recurses.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

MAX_DEPTH = 32
"""Brackets open at once; no answer needs more than four."""

Literal = float | bool | str | None | list["Literal"] | dict[str, "Literal"]
_Container = list[Literal] | dict[str, Literal]

# Possessive quantifiers: no pattern here ever tries the same text in a second way.
_SKIP = r"(?:\s|```[A-Za-z]*+)*+"
_NUM = r"[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+"
_TOKEN = re.compile(
    _SKIP + r"(?:"
    rf"\[\s*+({_NUM}(?:\s*+,\s*+{_NUM})*+)(?:\s*+,)?+\s*+\]"  # a row: a flat list of numbers, most of any answer
    rf"|({_NUM})"
    r'|("[^"\\]*+(?:\\.[^"\\]*+)*+"' + r"|'[^'\\]*+(?:\\.[^'\\]*+)*+')"
    r"|([-+]?[A-Za-z_]\w*+)"
    r"|([\[({])"
    r"|([\])}])"
    r"|(,)"
    r"|(:)"
    r"|(.)|\Z)",
    re.DOTALL,
)
_TAIL = re.compile(f"{_SKIP},?{_SKIP}\\Z")
_CLOSER = {"[": "]", "(": ")", "{": "}"}
_CONSTANTS: dict[str, Literal] = {"true": True, "false": False, "null": None, "none": None}
_CONSTANTS |= dict.fromkeys(("nan", "inf", "infinity"), math.nan)
_QUICK_LENGTH, _QUICK_OPENINGS = 4000, MAX_DEPTH
"""Up to here the library's reader is tried first: it recurses, and what it refuses is read a second time."""


class LiteralError(ValueError):
    """No literal stands there, or a broken one; the message says what is wrong with it."""


def read_whole(text: str) -> Literal:
    """The literal that `text` consists of; fences, space and one comma may stand around it.

    Every number is a float (infinite if too large for one), a tuple is a list, NaN and the
    infinities are NaN, escapes inside strings stay as written. Raises LiteralError, also for an object that has
    a key twice: readers differ in which of the two they take.
    """
    value, end = read_first(text, 0)
    if not _TAIL.match(text, end):
        raise LiteralError(f"more text after the value: {quote(text, end)}")
    return value


def read_first(text: str, start: int) -> tuple[Literal, int]:
    """The literal that begins at `start`, and where it ends; what follows is not looked at.

    Raises LiteralError.
    """
    return _read_json(text, start) or _read_any(text, start)


def _read_json(text: str, start: int) -> tuple[Literal, int] | None:
    """As `read_first`, of a plain JSON list or object, which most answers are; None for anything else."""
    if text[start : start + 1] not in ("[", "{") or len(text) - start > _QUICK_LENGTH or "\\" in text:
        return None
    if text.count("[", start) + text.count("{", start) > _QUICK_OPENINGS:
        return None
    try:
        return _JSON.raw_decode(text, start)
    except ValueError:
        return None


def _read_any(text: str, start: int) -> tuple[Literal, int]:
    builder = _Builder()
    for token in _TOKEN.finditer(text, start):
        kind = token.lastindex
        if kind is None or not _TAKE[kind](builder, token[kind]):
            where = token.start(kind) if kind else len(text)
            raise LiteralError(f"cannot read {quote(text, where)}")
        if builder.is_complete:
            return builder.root[0], token.end()
    raise LiteralError("nothing to read")


def _to_object(pairs: list[tuple[str, Literal]]) -> dict[str, Literal]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise LiteralError("a key stands twice")
    return found


_JSON = json.JSONDecoder(parse_int=float, parse_constant=lambda _: math.nan, object_pairs_hook=_to_object)


def quote(text: str, start: int) -> str:
    """A few characters of `text` from `start` on, safe to print on one line."""
    return ascii(text[start : start + 20]) if start < len(text) else "the end: something is left open"


class _Builder:
    """Puts tokens together; each method says whether its token may stand where it does."""

    def __init__(self) -> None:
        self.root: list[Literal] = []
        self._top: _Container = self.root
        self._closer = ""
        self._key: str | None = None
        self._wants_value = True
        self.is_complete = False
        self._outer: list[tuple[_Container, str, str | None]] = []

    def row(self, text: str) -> bool:
        return self._put([float(number) for number in text.split(",")])

    def number(self, text: str) -> bool:
        return self._put(float(text))

    def string(self, text: str) -> bool:
        return self._put(text[1:-1])

    def word(self, text: str) -> bool:
        word = text.lstrip("+-").lower()
        return word in _CONSTANTS and self._put(_CONSTANTS[word])

    def _put(self, value: Literal) -> bool:
        if not self._wants_value:
            return False
        self._wants_value = False
        if isinstance(self._top, list):
            self._top.append(value)
            self.is_complete = self._top is self.root
        elif self._key is not None:
            if self._key in self._top:
                raise LiteralError(f"the key {self._key[:20]!a} stands twice in one object")
            self._top[self._key] = value
            self._key = None
        elif isinstance(value, str):
            self._key = value
        else:
            return False
        return True

    def colon(self, text: str) -> bool:
        fits = self._key is not None and not self._wants_value
        self._wants_value = True
        return fits

    def comma(self, text: str) -> bool:
        fits = self._key is None and not self._wants_value
        self._wants_value = True
        return fits

    def open(self, bracket: str) -> bool:
        is_key = isinstance(self._top, dict) and self._key is None
        if not self._wants_value or is_key or len(self._outer) >= MAX_DEPTH:
            return False
        self._outer.append((self._top, self._closer, self._key))
        self._top = {} if bracket == "{" else []
        self._closer, self._key = _CLOSER[bracket], None
        return True

    def close(self, bracket: str) -> bool:
        if bracket != self._closer or self._key is not None:
            return False
        value = self._top
        self._top, self._closer, self._key = self._outer.pop()
        self._wants_value = True
        return self._put(value)

    def other(self, text: str) -> bool:
        return False


_TAKE: tuple[Callable[[_Builder, str], bool], ...] = (
    _Builder.other,
    _Builder.row,
    _Builder.number,
    _Builder.string,
    _Builder.word,
    _Builder.open,
    _Builder.close,
    _Builder.comma,
    _Builder.colon,
    _Builder.other,
)
"""What takes each group of `_TOKEN`, in their order."""
