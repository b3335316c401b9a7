"""The lenient reading: whole objects out of a text that the strict reading refuses or reads only in part.

It looks for the names of fields (`bbox_2d`, `points`, …), for tags and for rows of numbers, and takes
nothing else of the text's structure for granted. Where several answers follow each other the last complete
one counts. What was mended or left out is said in `Answer.repairs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from segrl.answers.mask_prompts import MAX_BOXES, MAX_POINTS, group
from segrl.answers.reading import split_reasoning
from segrl.answers.scan import Item, Row, Scan, groups
from segrl.types import MAX_PHRASE, RELATIVE_1000, Answer, Box, Frame, MaskPrompt, Point, Status

_WIDE = {ord(wide): plain for wide, plain in zip("【】〔〕「」“”„‘’、。", '[][][]"""\'\',.', strict=True)}
_WIDE |= {0xFF01 + i: chr(0x21 + i) for i in range(94)}
_ANSWER = re.compile(r"<\s?(/?)\s?answer\s?>", re.IGNORECASE)
_AFTER_THE_END = re.compile(r"(?:[\s`\]})>,.\"']|<\|\w{1,20}\|>|</\w{1,20}>)*+\Z")
_NONE = re.compile(
    r"\b(?:none|nothing|null|n/a|no (?:\w++ ){0,4}(?:visible|present|found|seen|shown|there|in|that)|"
    r"not (?:visible|present|found|shown|in)|there (?:is|are|was|were) (?:no|not|none)|there (?:isn't|aren't)|"
    r"(?:can ?not|can't|couldn't|could not|unable to|don't|do not|doesn't|does not) "
    r"(?:see|find|locate|detect|identify|contain|show|exist|appear))\b"
    r"|没有|不存在|未找到|无法找到|看不到",
    re.IGNORECASE,
)
_WORDS_LOOKED_AT = 2000


@dataclass(frozen=True)
class _Scope:
    """A part of a text that may hold the answer. reaches_end: to the end of the text. in_tag: between answer tags.

    as_thought: in the reasoning, where a draft is no answer: only tags count, or what ends the text.
    """

    text: str
    reaches_end: bool
    in_tag: bool = False
    as_thought: bool = False


def recover(text: str, strict: Answer, scans: Sequence[Scan], *, truncated: bool, frame: Frame) -> Answer:
    """The lenient answer for `text`, whose strict reading is `strict`; that itself where there is no better one.

    scans: what to look for, the first that finds something counts. Never raises; takes time linear in the
    length of `text`. frame: of the prompts; numbers with percent signs are relative to the image.
    """
    plain = text if text.isascii() else text.translate(_WIDE)
    for scope in _scopes(plain):
        answer = _read_scope(scope, strict, scans, truncated, frame)
        if answer is not None:
            return strict if (answer.status, answer.prompts) == (strict.status, strict.prompts) else answer
    return strict


def says_none(text: str) -> bool:
    """Whether the end of `text`, which holds no answer, says in words that nothing is there.

    >>> says_none("There are no dogs in this image."), says_none("The dog is on the left.")
    (True, False)
    """
    return _NONE.search(text[-_WORDS_LOOKED_AT:]) is not None


def _scopes(text: str) -> Iterator[_Scope]:
    """The parts in which an answer may stand, the likeliest first: after the reasoning, then in it."""
    _, body, _ = split_reasoning(text)
    closed = text.rfind("</think>") + len("</think>") if "</think>" in text else 0
    rest = text[closed + len(body) :]
    tags = list(_answer_tags(body, not rest))
    yield from tags
    if any(not scope.reaches_end and _says_so(scope.text) for scope in tags[:1]):
        return
    yield _Scope(body, not rest)
    thought, at_end = (rest, True) if rest else (text[:closed], False)
    yield from _answer_tags(thought, at_end)
    yield _Scope(thought, at_end, as_thought=True)


def _says_so(text: str) -> bool:
    return bool(text.strip()) and not any(char.isdigit() for char in text)


def _answer_tags(text: str, reaches_end: bool) -> Iterator[_Scope]:
    """What stands between answer tags, complete ones first, the last first; then what follows one that is open."""
    contents: list[str] = []
    start: int | None = None
    for tag in _ANSWER.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            contents.append(text[start : tag.start()])
            start = None
    yield from (_Scope(content, False, in_tag=True) for content in reversed(contents))
    if start is not None:
        yield _Scope(text[start:], reaches_end, in_tag=True)


def _read_scope(scope: _Scope, strict: Answer, scans: Sequence[Scan], truncated: bool, frame: Frame) -> Answer | None:
    """The answer in one part; None where nothing in it can be used."""
    is_cut = truncated and scope.reaches_end
    for scan in scans:
        items = [item for item in scan(scope.text, is_cut) if scope.in_tag or not item.is_stray_point]
        if not items or (scope.as_thought and not (scope.reaches_end and _ends(scope.text, items[-1], is_cut))):
            continue
        return _last_answer(items, strict, frame, may_be_nothing=not is_cut and (scan is scans[0] or scope.in_tag))
    return _nothing(strict) if scope.in_tag and not is_cut and not scope.text.strip(" \t\r\n`json") else None


def _last_answer(items: Sequence[Item], strict: Answer, frame: Frame, *, may_be_nothing: bool) -> Answer | None:
    """The last group of items that says something, those that are complete first."""
    for chosen in groups(items):
        notes = [f"the strict reading refuses it: {strict.detail}"] if strict.detail else []
        prompts = _to_prompts(chosen, frame, notes)
        if prompts:
            notes += _joined(items, chosen)
            return replace(strict, status=Status.OK, prompts=prompts, detail="", repairs=tuple(notes))
        if may_be_nothing and not any(item.rows or item.phrase or item.is_open for item in chosen):
            return _nothing(strict)
    return None


def _nothing(strict: Answer) -> Answer:
    repairs = ("an answer without an object was taken to say that nothing is there",)
    return replace(strict, status=Status.NO_TARGET, prompts=(), detail="", repairs=repairs)


def _ends(text: str, last: Item, is_cut: bool) -> bool:
    """Whether nothing but marks follows the last item."""
    return (is_cut and last.is_open) or _AFTER_THE_END.match(text, last.end) is not None


def _joined(items: Sequence[Item], chosen: Sequence[Item]) -> Iterator[str]:
    if len(chosen) > 1 and all(item.is_bare for item in chosen):
        yield f"{len(chosen)} objects that stood in no list were taken together"
    if len(items) > len(chosen):
        count = len(items) - len(chosen)
        yield f"{count} {'object' if count == 1 else 'objects'} of an earlier answer taken for a draft"


def _to_prompts(items: Sequence[Item], frame: Frame, notes: list[str]) -> tuple[MaskPrompt, ...]:
    """The mask prompts of the items; what cannot be used is left out, and said in `notes`."""
    prompts: list[MaskPrompt] = []
    faults: dict[str, int] = {}
    n_boxes = n_points = 0
    for item in items:
        said: list[str] = []
        boxes, points, labels = _boxes(item.boxes, said), *_points(item.points, item.labels, said)
        n_boxes, n_points = n_boxes + len(boxes), n_points + len(points)
        if n_boxes > MAX_BOXES or n_points > MAX_POINTS:
            said.append(f"all beyond {MAX_BOXES} boxes or {MAX_POINTS} points")
            boxes, points, labels = [], [], []
        prompts += _named(item, _in_frame(item, boxes, points, labels, frame, said), frame, said)
        for fault in said:
            faults[fault] = faults.get(fault, 0) + 1
    notes += [f"left out{f' ({count} times)' if count > 1 else ''}: {fault}" for fault, count in faults.items()]
    return tuple(prompts)


def _in_frame(
    item: Item, boxes: list[Box], points: list[Point], labels: list[int], frame: Frame, said: list[str]
) -> tuple[MaskPrompt, ...]:
    """One item's mask prompts; in the relative frame where its numbers are percentages."""
    percents = [row.percents for row in item.rows if row.numbers]
    if not any(percents):
        return group(boxes, points, labels, frame)
    if not all(percents):
        said.append("an object of which only some numbers are percentages")
        return ()
    tenfold = [(10 * x1, 10 * y1, 10 * x2, 10 * y2) for x1, y1, x2, y2 in boxes]
    return group(tenfold, [(10 * x, 10 * y) for x, y in points], labels, RELATIVE_1000)


def _named(item: Item, prompts: tuple[MaskPrompt, ...], frame: Frame, said: list[str]) -> tuple[MaskPrompt, ...]:
    """The item's mask prompts with its phrase and what it excludes; the phrase alone where it marks nothing."""
    if not item.phrase:
        return prompts
    if len(item.phrase) > MAX_PHRASE:
        said.append(f"a phrase of more than {MAX_PHRASE} characters")
        return prompts
    unlike = tuple(_boxes(item.unlike, said))
    words = MaskPrompt(frame=frame, phrase=item.phrase, exemplars_xyxy=unlike, exemplar_labels=(0,) * len(unlike))
    return tuple(
        replace(words, box_xyxy=one.box_xyxy, points_xy=one.points_xy, labels=one.labels, frame=one.frame)
        for one in prompts
    ) or (words,)


def _boxes(rows: Sequence[Row], said: list[str]) -> list[Box]:
    """Boxes of rows of four numbers, or of two corners."""
    boxes: list[Box] = []
    corner: list[float] = []
    for row in rows:
        numbers = corner + row.numbers
        corner = []
        if row.is_spoiled:
            said.append("a box that is truncated or not numeric")
        elif len(numbers) == 2 and row is not rows[-1]:
            corner = numbers
        elif len(numbers) == 5 and 0 <= numbers[4] <= 1:
            said.append("the fifth number of a box, taken for a score")
            boxes += _some(_box(numbers[:4], said))
        elif not numbers or len(numbers) % 4:
            said.append(f"a box of {len(numbers)} numbers")
        else:
            boxes += _some(*(_box(numbers[i : i + 4], said) for i in range(0, len(numbers), 4)))
    return boxes


def _some(*boxes: Box | None) -> list[Box]:
    return [box for box in boxes if box is not None]


def _box(numbers: Sequence[float], said: list[str]) -> Box | None:
    x1, y1, x2, y2 = numbers
    box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    if x1 == x2 or y1 == y2:
        said.append("a box without an area")
        return None
    return box


def _points(rows: Sequence[Row], label_rows: Sequence[Row], said: list[str]) -> tuple[list[Point], list[int]]:
    """Points of rows of two numbers, or three of which the last is a label; without labels they lie on the object."""
    points: list[Point] = []
    own: list[float] = []
    for row in rows:
        if row.is_spoiled or len(row.numbers) not in (2, 3):
            said.append("a point that is truncated or not a pair of numbers")
            continue
        points.append((row.numbers[0], row.numbers[1]))
        own.append(row.numbers[2] if len(row.numbers) == 3 else 1.0)
    labels = [label for row in label_rows for label in row.numbers] if label_rows else own
    kept = [(xy, int(label)) for xy, label in zip(points, labels, strict=False) if label in (0.0, 1.0)]
    if len(kept) < len(points):
        said.append("a point without a label of 0 or 1")
    return [xy for xy, _ in kept], [label for _, label in kept]
