"""Words for a segmenter that takes them (SAM 3): named objects in JSON, or a text that is itself the words.

concept: one entry for each thing that is meant

    <think>…</think><answer>[{"phrase": "striped cat", "bbox_2d": [10,100,200,210], "exclude": [[2,9,70,78]]}]</answer>

A phrase alone asks for every instance of it; with a box for the one there; a box alone is an answer too. What
`exclude` boxes is an example of what is not meant (a box, or a list of boxes). `[]` says "nothing there".

words: the whole text is one phrase, and an empty one says "nothing there"; reasoning with nothing after it is no
answer. The policy `words` sends the query so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from segrl.answers.base import AnswerFormat, number_list
from segrl.answers.json_formats import Field, JsonFormat
from segrl.answers.lenient_json import Literal
from segrl.answers.mask_prompts import MAX_BOXES, check_count, read_box, read_boxes
from segrl.answers.reading import BadValues, Found
from segrl.answers.scan import BY_FIELDS, Item, read_rows
from segrl.answers.seg_r1 import segment_prompt
from segrl.types import MAX_PHRASE, UNKNOWN_FRAME, Answer, Frame, MaskPrompt, Reading, Status

WORDS = frozenset({"words"})

_PHRASE = re.compile(
    r"[\"']?\b(?:noun_?)?phrase[\"']?\s*+:\s*+(?:\"(?P<double>[^\"\n]{1,300}+)\"|'(?P<single>[^'\n]{1,300}+)')",
    re.IGNORECASE,
)
_BOX = re.compile(r"[\"']?\bb?box(?:_2d)?[\"']?\s*+:", re.IGNORECASE)
_EXCLUDE = re.compile(r"[\"']?\bexclude[\"']?\s*+:", re.IGNORECASE)


def scan_phrases(text: str, is_cut: bool) -> list[Item]:
    """Objects by their phrases, each with the box and the boxes to exclude that stand before the next phrase."""
    found = list(_PHRASE.finditer(text))
    items = []
    for match, after in zip(found, [*found[1:], None], strict=False):
        end = len(text) if after is None else after.start()
        item = Item(0, match.start(), phrase=(match["double"] or match["single"]).strip(), end=match.end())
        for pattern, rows in ((_BOX, item.boxes), (_EXCLUDE, item.unlike)):
            key = pattern.search(text, match.end(), end)
            if key is not None:
                values, stop, item.is_open = read_rows(text, key.end(), end, is_cut and after is None)
                rows.extend(values)
                item.end = max(item.end, stop)
        items.append(item)
    return items


def _read_phrase(value: Literal) -> str:
    if not isinstance(value, str) or not value.strip() or len(value.strip()) > MAX_PHRASE:
        raise BadValues(f"a phrase is a text of 1 to {MAX_PHRASE} characters")
    return value.strip()


class Concept(JsonFormat):
    """The format named `concept`."""

    name = "concept"
    required_parts = frozenset({"think", "answer"})
    needs = WORDS
    scans = (scan_phrases, *BY_FIELDS)
    fields = (
        Field("phrase", "phrase", _read_phrase),
        Field("bbox", "bbox_2d", read_box),
        Field(None, "exclude", read_boxes),
    )
    lead = " "
    system = (
        "You find what the user asks for in the image. Compare the objects you see before you choose. Write your "
        "reasoning in <think></think> and your answer in <answer></answer>, as a JSON list with an entry for each "
        'thing that is meant: "phrase", a short noun phrase that names it by what can be seen; "bbox_2d", its bounding '
        'box, where the phrase alone also fits others; "exclude", boxes of things that the phrase fits and that are '
        "not meant. A phrase without a box stands for everything that it fits. The list is empty if nothing fits. "
        "Example: <think>your reasoning</think>"
        '<answer>[{"phrase": "striped cat", "bbox_2d": [10,100,200,210]}]</answer>'
    )

    def prompt(self, query: str) -> str:
        """The query as seg-r1 asks it; the instruction is the system prompt."""
        return segment_prompt(query)

    def render_entry(self, prompt: MaskPrompt) -> str:
        """The phrase, the box and the negative examples of a prompt. Raises ValueError for points alone."""
        fields = [f'"phrase": {_quoted(prompt.phrase)}'] if prompt.phrase else []
        if prompt.box_xyxy is not None:
            fields.append(f'"bbox_2d": {number_list(prompt.box_xyxy)}')
        if not fields:
            raise ValueError("concept cannot say points or examples without a phrase or a box")
        examples = zip(prompt.exemplars_xyxy, prompt.exemplar_labels, strict=True)
        unlike = [number_list(box) for box, label in examples if label == 0]
        fields += [f'"exclude": [{",".join(unlike)}]'] if unlike else []
        return f"{{{', '.join(fields)}}}"

    def to_prompts(self, *columns: Any, frame: Frame) -> Iterator[MaskPrompt]:
        check_count(sum(len(own or ()) for own in columns[2]), MAX_BOXES, "boxes under exclude")
        for phrase, box, excluded in zip(*columns, strict=True):
            if phrase is None and box is None:
                raise BadValues('an entry with neither "phrase" nor "bbox_2d"')
            unlike = tuple(excluded or ())
            labels = (0,) * len(unlike)
            yield MaskPrompt(box, frame=frame, phrase=phrase or "", exemplars_xyxy=unlike, exemplar_labels=labels)


class Words(AnswerFormat):
    """The format named `words`."""

    name = "words"
    required_parts = frozenset({"phrase"})
    needs = WORDS

    def prompt(self, query: str) -> str:
        """The query itself."""
        return query.strip()

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The phrase of the one prompt. Raises ValueError for several, for one without a phrase, and for reasoning."""
        if len(prompts) > 1 or any(not prompt.phrase for prompt in prompts) or reasoning:
            raise ValueError("words cannot say anything but one phrase")
        return prompts[0].phrase if prompts else ""

    def parse(
        self, text: str, *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME, reading: Reading = "strict"
    ) -> Answer:
        """See AnswerFormat. Reasoning alone says nothing, not "nothing there"."""
        answer = super().parse(text, truncated=truncated, frame=frame, reading=reading)
        if answer.status is Status.NO_TARGET and text.strip():
            parts = answer.parts - {"phrase"}
            return replace(answer, status=Status.NO_ANSWER, detail="no phrase after the reasoning", parts=parts)
        return answer

    def read(self, body: str, frame: Frame) -> Found:
        phrase = body.strip()
        if len(phrase) > MAX_PHRASE:
            return Found(faults=[(Status.BAD_VALUES, f"a phrase of {len(phrase)} characters: at most {MAX_PHRASE}")])
        prompts = (MaskPrompt(phrase=phrase, frame=frame),) if phrase else ()
        return Found(prompts, parts={"phrase"})  # nothing marks its end: a text that was cut off is never complete


def _quoted(phrase: str) -> str:
    """In JSON's quotes; the reader takes escapes as they stand, so there are none."""
    return f'"{" ".join(phrase.split()).replace(chr(34), chr(39))}"'
