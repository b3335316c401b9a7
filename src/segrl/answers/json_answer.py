"""What sam-r1, seg-zero and json-list share: JSON objects between answer tags, or bare."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from segrl.answers.lenient_json import Literal, read_first, read_whole
from segrl.answers.prompts import MAX_BOXES, check_count
from segrl.answers.reading import BadValues, Found, blocks, tag_pattern
from segrl.types import Status

Entry = dict[str, Literal]

_TAGS = tag_pattern("answer")
_BARE = re.compile(r"""\[\s*+[{\]]|\{\s*+["']""")
"""Where a list of objects, an empty list or an object begins."""
_OTHER = re.compile(r"[\[{]")
_T = TypeVar("_T")


def read_entries(reading: Found, body: str) -> list[Entry] | None:
    """The objects in the last `<answer>`; in a text without such tags the first that stand there, fenced or bare.

    None with the fault noted if there are none.
    """
    if "<answer>" in body or "</answer>" in body:
        return read_answer_tag(reading, body)
    found = _BARE.search(body)
    start = found.start() if found else body.find("[")
    if start < 0:
        reading.faults.append((Status.NO_ANSWER, "no <answer>…</answer> and no JSON"))
        return None
    literal = reading.attempt(read_first, body, start)
    if literal is None:
        return None
    value, end = literal
    reading.is_complete, reading.is_all = True, _OTHER.search(body, end) is None
    return reading.attempt(to_entries, value)


def read_answer_tag(reading: Found, body: str) -> list[Entry] | None:
    """The objects in the last `<answer>`, or None with the fault noted; "answer" is a part if there is just one tag."""
    contents = reading.attempt(lambda: [content for _, content in blocks(body, _TAGS)])
    reading.is_complete = bool(contents)
    if contents == []:
        reading.faults.append((Status.NO_ANSWER, "no <answer>…</answer>"))
    if not contents:
        return None
    entries = reading.attempt(lambda: to_entries(read_whole(contents[-1])))
    if entries is not None and len(contents) == 1:
        reading.parts.add("answer")
    return entries


def to_entries(value: Literal) -> list[Entry]:
    """A JSON object, or a list of them, as a list. Raises BadValues for anything else."""
    values = value if isinstance(value, list) else [value]
    check_count(len(values), MAX_BOXES, "objects")
    entries = [entry for entry in values if isinstance(entry, dict)]
    if len(entries) < len(values):
        raise BadValues("the answer is not made of JSON objects")
    return entries


def read_field(
    reading: Found, part: str, entries: Sequence[Entry], key: str, read: Callable[[Literal], _T]
) -> list[_T | None] | None:
    """`read(entry[key])` of each entry, None where it lacks the key; None with the fault noted if one is bad.

    `part` is a part if no entry lacks the key.
    """
    values = reading.attempt(lambda: [read(entry[key]) if key in entry else None for entry in entries])
    if values is not None and all(key in entry for entry in entries):
        reading.parts.add(part)
    return values
