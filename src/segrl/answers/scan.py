"""Scanners of the lenient reading: what in a text could be an object, whatever is broken around it.

Each looks for one kind of mark (the names of fields, tags, rows of numbers) and yields `Item`s. None
raises, and each takes time linear in the length of the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_NUM = r"(?<![A-Za-z_0-9.])(?:(?<![0-9])[-+])?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+"
_QUOTES = r"[\"'\\]{0,2}+"
_BOX = r"bbox_?2d|b?boxes|bboxes|bbox|box_2d|bounding_?box(?:es)?|box"
_POINT = r"positive_points|points?_?2d|points?_?[0-9]|points?"
_OTHER_KEY = r"(?:[\"']{1,2}[^\"'\n]{0,40}+[\"']{1,2}|\b[A-Za-z_]\w{0,40}+)\s*+:(?!:)"
_SLOTS = {"x1": 0, "xmin": 0, "left": 0, "x": 0, "y1": 1, "ymin": 1, "top": 1, "y": 1}
_SLOTS |= {"x2": 2, "xmax": 2, "right": 2, "y2": 3, "ymax": 3, "bottom": 3, "width": 4, "w": 4, "height": 5, "h": 5}

_FIELD = re.compile(
    rf"(?P<key>{_QUOTES}(?<![A-Za-z_])(?:(?P<box>{_BOX})|(?P<point>{_POINT})|(?P<label>labels)){_QUOTES}\s*+[:=]"
    r"(?=\s*+[\"'`\\]{0,3}+\s*+(?:[\[({0-9.+-]|null|none)))"
    rf"|(?P<other>{_OTHER_KEY}(?:\s*+\"[^\"\n]*+\")?+)"
    r"|(?P<empty>[\[{]\s*+(?:\{\s*+\}|\[\s*+\])?+\s*+[\]}])"
    r"|(?P<list>\[)(?=\s*+[\[{])|(?P<end>\])|(?P<brace>\{)|(?P<close>\})",
    re.IGNORECASE,
)
_VALUE = re.compile(
    rf"(?P<number>{_NUM})(?P<percent>\s?%)?|(?P<open>[\[(])|(?P<close>[\])])[\"'\\]{{0,2}}(?=\s*+(?:[,\]}})]|\Z))|(?P<shut>[\])])"
    rf"|(?P<comment>//[^\n]*+)|(?P<key>{_OTHER_KEY})|(?P<brace>[{{}}]|</?[A-Za-z|])"
    r"|(?P<no>\b(?:nan|null|none|inf(?:inity)?|true|false)\b)|(?P<word>[^\W\d_]\w*+)|(?P<line>\n)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\{[^{}]{0,300}+\}")
_NAMED_VALUE = re.compile(r"\s*+\{[^{}]{0,300}+\}")
_COORDINATE = re.compile(
    rf"[\"']?\b([xy]_?(?:min|max|[12])?|left|top|right|bottom|width|height|w|h)[\"']?\s*+:\s*+[\"']?({_NUM})"
)
_TAG = re.compile(r"<(/?)(?:(bbox|box)|(points?)|(labels?))>|<\|box_(start|end)\|>", re.IGNORECASE)
_POINT_TAG = re.compile(r"<points?\s[^<>]*+", re.IGNORECASE)
_ATTRIBUTE = re.compile(rf"\b([xy])([0-9]{{0,4}}+)\s?=\s?[\"']\s?({_NUM})\s?%?[\"']")
_CELL = rf"[\"']?{_NUM}(?:\s?%)?+[\"']?"
_ROW = re.compile(rf"[\[(]\s*+{_CELL}(?:(?:\s*+[,;]\s*+|\s++){_CELL})*+\s*+,?+\s*+[\])]")
_LETTER = re.compile(r"[^\W\d_]")
_FENCE = re.compile(r"```\w*+")
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correct(?:ed|ion)?|final(?:ly)?|instead|revised?|refined?|updated?|sorry|mistake|better)\b",
    re.IGNORECASE,
)


@dataclass
class Row:
    """Numbers between two brackets. is_spoiled: it was cut off, or holds what is no finite number."""

    numbers: list[float] = field(default_factory=list)
    percents: int = 0
    is_spoiled: bool = False


@dataclass
class Item:
    """What could be one object, or (with a list of boxes) several.

    group: items of one list, or of one run of objects without a list. is_bare: in no list. end: behind its
    last character. is_open: the text ended within it. is_unnamed: no tag and no name of a field told what it is.
    phrase: words that name it. unlike: boxes around what is not meant.
    """

    group: int
    start: int
    boxes: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    labels: list[Row] = field(default_factory=list)
    is_bare: bool = False
    end: int = 0
    is_open: bool = False
    is_unnamed: bool = False
    phrase: str = ""
    unlike: list[Row] = field(default_factory=list)

    @property
    def is_stray_point(self) -> bool:
        """Whether it is a pair of numbers without a name, such as stands in any prose."""
        return self.is_unnamed and bool(self.points)

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [*self.boxes, *self.points, *self.labels]


Scan = Callable[[str, bool], list[Item]]
"""The items in a text; the second argument says whether the text was cut off at its end."""


def read_rows(text: str, start: int, end: int, is_cut: bool, *, one_value: bool = True) -> tuple[list[Row], int, bool]:
    """The rows of the value that begins at `start`, where it ends, and whether the text ended within it.

    one_value: it ends where its brackets do, at a key, a brace or a tag; else all rows up to `end` are read.
    """
    rows: list[Row] = []
    row, depth = Row(), 0
    for token in _VALUE.finditer(text, start, end):
        kind = token.lastgroup
        if kind in ("number", "percent"):
            value = float(token["number"])
            row.numbers.append(value)
            row.percents += token["percent"] is not None
            row.is_spoiled |= not math.isfinite(value)
        elif kind == "no":
            if one_value and depth <= 0:
                return rows, token.end(), False
            row.is_spoiled = True
        elif kind == "open":
            depth += 1
            row = _next(rows, row)
        elif kind in ("close", "shut"):
            depth -= 1
            row = _next(rows, row)
            if one_value and depth <= 0:
                return rows, token.end(), False
        elif one_value and (kind in ("key", "brace") or (kind in ("word", "line") and depth <= 0 and row.numbers)):
            _next(rows, row)
            return rows, token.start(), False
    row.is_spoiled |= is_cut and bool(row.numbers)
    _next(rows, row)
    return rows, end, depth > 0 or is_cut


def _next(rows: list[Row], row: Row) -> Row:
    """A new row, with the last one kept if anything stood in it."""
    if row.numbers or row.is_spoiled:
        rows.append(row)
    return Row()


def scan_fields(text: str, is_cut: bool) -> list[Item]:
    """Objects by the names of their fields, as in `{"bbox_2d": [1, 2, 30, 40], "point_2d": [5, 6]}`."""
    scanner = _FieldScanner(text, is_cut)
    scanner.run()
    return scanner.items


class _FieldScanner:
    def __init__(self, text: str, is_cut: bool) -> None:
        self.text, self.is_cut = text, is_cut
        self.items: list[Item] = []
        self._item: Item | None = None
        self._depth, self._group, self._end, self._was_bare = 0, 0, 0, False

    def run(self) -> None:
        position = 0
        while found := _FIELD.search(self.text, position):
            kind = found.lastgroup or ""
            position = found.end()
            if kind == "key":
                position = self._field(found)
            elif kind == "empty":
                self._flush(found.start())
                self._begin(found.start())
                self._flush(found.end(), keep=True)
            elif kind == "list":
                self._open_list(found.start())
            elif kind == "end" and self._depth:
                self._depth -= 1
                self._end = found.end()
            elif kind in ("brace", "close"):
                self._flush(found.end())
                if kind == "brace":
                    self._item = None
        if self._item is not None:
            self._item.is_open = True
            self._flush(len(self.text))
        elif self._depth and self.items:
            self.items[-1].is_open = True

    def _field(self, found: re.Match[str]) -> int:
        """Reads the value of a field; where it ends."""
        name = "box" if found["box"] else "point" if found["point"] else "label"
        key = found[name].lower()
        named = _NAMED_VALUE.match(self.text, found.end())
        if named is not None:
            rows, end, is_open = named_rows(named[0]), named.end(), False
        else:
            rows, end, is_open = read_rows(self.text, found.end(), len(self.text), self.is_cut)
        if self._item is not None and key in self._keys:
            self._flush(found.start())
        item = self._item or self._begin(found.start())
        self._keys.add(key)
        {"box": item.boxes, "point": item.points, "label": item.labels}[name].extend(rows)
        item.is_open = is_open
        return end

    def _open_list(self, start: int) -> None:
        self._flush(start)
        if self._depth == 0:
            self._new_group(start, is_bare=False)
        self._depth += 1

    def _begin(self, start: int) -> Item:
        if self._depth == 0:
            self._new_group(start, is_bare=True)
        self._item, self._keys = Item(self._group, start, is_bare=self._depth == 0), set[str]()
        return self._item

    def _new_group(self, start: int, *, is_bare: bool) -> None:
        """Goes on with the group before if only punctuation, or prose between bare objects, separates the two."""
        gap = _FENCE.sub("", self.text[self._end : start])
        both_bare = is_bare and self._was_bare
        goes_on = self._end and not (_CORRECTION.search(gap) if both_bare else _LETTER.search(gap))
        self._group += not goes_on
        self._was_bare = is_bare

    def _flush(self, end: int, keep: bool = False) -> None:
        if self._item is not None:
            self._item.end = self._end = end
            self.items.append(self._item)
        self._item = None


def named_rows(text: str) -> list[Row]:
    """The row that an object with named coordinates says, as `{"x1": 1, "y1": 2, "x2": 30, "y2": 40}`; [] for none."""
    slots: dict[int, float] = {}
    for name, value in _COORDINATE.findall(text):
        slots[_SLOTS[name.lower().replace("_", "")]] = float(value)
    if slots.keys() >= {0, 1, 2, 3}:
        return [Row([slots[i] for i in range(4)])]
    if slots.keys() >= {0, 1, 4, 5}:
        return [Row([slots[0], slots[1], slots[0] + slots[4], slots[1] + slots[5]])]
    return [Row([slots[0], slots[1]])] if slots.keys() >= {0, 1} else []


def scan_tags(text: str, is_cut: bool) -> list[Item]:
    """One item with all that stands in `<bbox>`, `<points>`, `<labels>`, `<box>` and `<|box_start|>` tags."""
    tags = list(_TAG.finditer(text))
    item = Item(0, tags[0].start() if tags else 0)
    for tag, after in zip(tags, [*tags[1:], None], strict=False):
        closes, box, point, label, qwen = tag.groups()
        item.end = tag.end()
        if closes or qwen == "end":
            continue
        is_last = after is None
        end = len(text) if after is None else after.start()
        rows, item.end, item.is_open = read_rows(text, tag.end(), end, is_cut and is_last, one_value=False)
        {bool(box or qwen): item.boxes, bool(point): item.points, bool(label): item.labels}[True].extend(
            rows or [Row()]
        )
    return [item] if item.rows else []


def scan_rows(text: str, is_cut: bool) -> list[Item]:
    """Objects as bare rows: `[[1, 2, 30, 40], …]`, two corners `(1,2),(30,40)`, `[5, 6]`, or named coordinates.

    A row of two numbers that is no corner is a point. `is_cut` changes nothing: a row has both brackets.
    """
    items: list[Item] = []
    for match in _ROW.finditer(text):
        (row, *_), _, _ = read_rows(text, match.start(), match.end(), False)
        last = items[-1] if items else None
        is_corner = last is not None and last.points and not text[last.end : match.start()].strip(" ,")
        if last is not None and is_corner and len(row.numbers) == 2:
            last.boxes, last.points, last.end = [*last.points, row], [], match.end()
        elif len(row.numbers) == 2:
            items.append(Item(0, match.start(), points=[row], end=match.end(), is_unnamed=True))
        else:
            items.append(Item(0, match.start(), boxes=[row], end=match.end()))
    named = [] if items else [(match, named_rows(match[0])) for match in _NAMED.finditer(text)]
    return items or [Item(0, match.start(), boxes=rows, end=match.end()) for match, rows in named if rows]


def groups(items: Iterable[Item]) -> list[list[Item]]:
    """The items by their groups, complete groups before those in which the text ended, and the last first."""
    found: dict[int, list[Item]] = {}
    for item in items:
        found.setdefault(item.group, []).append(item)
    order = sorted(found, key=lambda group: (found[group][-1].is_open, -group))
    return [found[group] for group in order]


def scan_percent_points(text: str, is_cut: bool) -> list[Item]:
    """Points in attributes, each an object of its own: `<points x1="10.5" y1="20.1" alt="dogs">`; percentages."""
    items: list[Item] = []
    for tag in _POINT_TAG.finditer(text):
        xs: dict[str, float] = {}
        for axis, number, value in _ATTRIBUTE.findall(tag[0]):
            if axis == "x":
                xs[number] = float(value)
            elif number in xs:
                row = Row([xs.pop(number), float(value)], percents=1)
                items.append(Item(0, tag.start(), points=[row], end=tag.end()))
    return items


def y_first(scan: Scan) -> Scan:
    """The same scanner for a family that writes y before x."""

    def scan_and_swap(text: str, is_cut: bool) -> list[Item]:
        items = scan(text, is_cut)
        for item in items:
            for row in (*item.boxes, *item.points):
                pairs = [(row.numbers[i + 1], row.numbers[i]) for i in range(0, len(row.numbers) - 1, 2)]
                row.numbers[: 2 * len(pairs)] = [number for pair in pairs for number in pair]
        return items

    return scan_and_swap


BY_FIELDS: tuple[Scan, ...] = (scan_fields, scan_tags, scan_percent_points, scan_rows)
BY_TAGS: tuple[Scan, ...] = (scan_tags, scan_fields, scan_percent_points, scan_rows)
