"""Reasoning for gold mask prompts, written by a model that is shown the answer, as FCoT was made.

    SOURCE/data.jsonl   lines with prompts, as `write_prompts` leaves them
    OUT/data.jsonl      those whose text was kept, with `reasoning`; read by the `jsonl` reader
    OUT/dropped.jsonl   the others: {"id": "…", "why": "disagrees", "detail": "…", "text": "…"}
    OUT/reason.json     what they were made with, and how many were kept and dropped, and why

The model must repeat the answer behind its reasoning. A text is kept if it parses, its answer agrees
with the gold prompts, and its reasoning says something, names no coordinates (which would be right in
one policy's frame only) and does not speak of an answer that it was given.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl import answers
from segrl.coordinates import box_iou, convert, to_original
from segrl.errors import DataError, ServerError
from segrl.files import make_directory, read_rows, write_atomically
from segrl.images import read_image
from segrl.jobs import InProcess, Journal, WorkerDied, WorkerInfo, check_settings, locked
from segrl.jobs.journal import read_settings
from segrl.policies.openai_policy import at_once
from segrl.types import ORIGINAL, Answer, MaskPrompt

if TYPE_CHECKING:
    from PIL import Image

    from segrl.answers import AnswerFormat
    from segrl.policies import Policy

DATA, DROPPED, ABOUT, LOCK = "data.jsonl", "dropped.jsonl", "reason.json", ".lock"

MIN_WORDS = 8
"""A reasoning of fewer words says nothing that one could learn from."""
MIN_BOX_IOU = 0.9
MAX_POINT_SHIFT = 0.02
"""How far a repeated point may lie from the gold one, as a share of the image's diagonal."""

_COORDINATES = re.compile(r"[\[(]\s*+\d++(?:\.\d++)?+\s*+,\s*+\d")
_GIVEN = re.compile(
    r"\b(?:given|provided|gold|supplied)\s++(?:answer|solution|bounding|box|boxes|points?)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Reasoned:
    """How many lines were kept, and how many dropped for each reason."""

    kept: int
    dropped: Mapping[str, int]


def request(answer_format: AnswerFormat, query: str, gold_text: str) -> str:
    """What the model is asked: to explain how one finds the answer, and to repeat it."""
    return (
        f'Somebody asked about this image: "{query.strip()}"\n'
        f"The right answer is:\n{gold_text}\n"
        "Its boxes and points mark what was asked for; points labelled 0 lie on something else, and empty lists say "
        "that nothing in the image fits. Write the reasoning of a person who looks at the image and works that answer "
        "out: what the request means, which things in the image could be meant, what tells the right one from the "
        "others, where it is and how far it reaches. Say places in words, write no coordinates, and write as if "
        "nobody had shown you the answer. Then repeat the answer exactly. Write nothing but:\n"
        f"<think>the reasoning, three to six sentences</think>{gold_text}"
    )


def write_reasoning(
    source: Path,
    out: Path,
    policy: Policy,
    *,
    answer_format: str = "seg-r1",
    max_new_tokens: int = 1024,
    temperature: float = 0.7,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int, Mapping[str, int]], None] | None = None,
) -> Reasoned:
    """Has `policy` write the reasoning for every line of `source`; started again it goes on where it stopped.

    answer_format: in which the answer is shown and repeated. on_progress: called with the lines done,
    their number, and the reasons of those dropped so far. Raises DataError for lines without prompts and for an
    `out` that was begun with other settings, SegrlError for one that cannot be written, ServerError where the
    server gives up.
    """
    rows = _rows(source / DATA)
    settings = {**(about or {}), "source": str(source), "answer_format": answer_format, "temperature": temperature}
    settings |= {"seed": seed, "max_new_tokens": max_new_tokens}
    make_directory(out)
    with locked(out / LOCK, out):
        kept = Journal(out / DATA, key=_id)
        dropped = Journal(out / DROPPED, key=_id, note=lambda row: row["why"])
        _claim(out, settings, kept, dropped)
        writer = _Writer(source, out, policy, answers.get(answer_format), max_new_tokens, temperature, seed)
        left = [row for row in rows if row["id"] not in kept and row["id"] not in dropped]
        for _, written in InProcess().run(_windows(left, 4 * writer.concurrency), partial(_written, writer=writer)):
            assert not isinstance(written, WorkerDied)  # this process answers
            refused = [error for _, error in written if error is not None]
            if len(refused) == len(written) and not kept and not dropped:
                raise refused[0]  # nothing was answered yet: the fault is in the request, not in an image
            if not (out / ABOUT).exists():
                _note(out, settings)
            kept.add(*(row for row, _ in written if "why" not in row))
            dropped.add(*(row for row, _ in written if "why" in row))
            if on_progress is not None:
                on_progress(len(kept) + len(dropped), len(rows), Counter(dropped.notes.values()))
        reasons = dict(sorted(Counter(dropped.notes.values()).items()))
        _note(out, settings, kept=len(kept), dropped=reasons)
    return Reasoned(len(kept), reasons)


def _windows(rows: Sequence[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))


def _written(windows: Iterable[list[dict[str, Any]]], worker: WorkerInfo, writer: _Writer) -> Iterator[list[_Outcome]]:
    """What came of each window's lines, in their order."""
    for window in windows:
        yield at_once(writer, window, writer.concurrency)


def _id(row: Mapping[str, Any]) -> str:
    return str(row["id"])


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no {path}: `segrl data prompts` writes it")
    rows = read_rows(path)
    for row in rows:
        if "prompts" not in row or "id" not in row:
            raise DataError(f"{path} has a line without id and prompts: `segrl data prompts` writes such lines")
    return rows


def _claim(out: Path, settings: Mapping[str, Any], kept: Journal, dropped: Journal) -> None:
    """Raises SegrlError if the directory holds lines of other settings, or data that nobody reasoned about."""
    if not kept and not dropped:
        (out / ABOUT).unlink(missing_ok=True)
    elif not (out / ABOUT).exists():
        raise DataError(f"{out / DATA} is there already: choose another --out")
    else:
        check_settings(out, read_settings(out / ABOUT).get("settings"), settings, "reasoning made")


def _note(out: Path, settings: Mapping[str, Any], **result: Any) -> None:
    """Writes what the lines are made with, and at the end what came of it."""
    write_atomically(out / ABOUT, json.dumps({"settings": settings, **result}, indent=1, ensure_ascii=False) + "\n")


_Outcome = tuple[dict[str, Any], ServerError | None]
"""A line for one of the two files, and the error if the server refused it."""


@dataclass(frozen=True)
class _Writer:
    """Called with a line, gives the line for one of the two files, and the error if the server refused it."""

    source: Path
    out: Path
    policy: Policy
    format: AnswerFormat
    max_new_tokens: int
    temperature: float
    seed: int

    @property
    def concurrency(self) -> int:
        """Lines that are asked about at a time."""
        return int(getattr(self.policy, "concurrency", 1))

    def __call__(self, row: Mapping[str, Any]) -> _Outcome:
        image = read_image(self.source / row["image"])
        gold_text, gold = self._gold(row, image)
        try:
            ((completion,),) = self.policy.generate(
                [image],
                [request(self.format, row["query"], gold_text)],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=self.seed,
            )
        except ServerError as error:
            if not error.is_about_the_request:
                raise
            return {"id": row["id"], "why": "refused", "detail": str(error), "text": ""}, error
        frame = self.policy.frame_for(image.size)
        answer = to_original(
            self.format.parse(completion.text, truncated=completion.truncated, frame=frame), image.size
        )
        fault = _fault(answer, gold, image.size)
        if fault is not None:
            return {"id": row["id"], "why": fault[0], "detail": fault[1], "text": completion.text}, None
        picture = os.path.relpath(self.source / row["image"], self.out)
        return {**row, "image": Path(picture).as_posix(), "reasoning": answer.reasoning}, None

    def _gold(self, row: Mapping[str, Any], image: Image.Image) -> tuple[str, Answer]:
        """The gold answer as the policy would write it, and as it is read again."""
        frame = self.policy.frame_for(image.size)
        prompts = [MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"]]
        written = self.format.render([convert(prompt, frame, image.size) for prompt in prompts])
        text = written.partition("</think>")[2].strip() or written
        return text, to_original(self.format.parse(text, frame=frame), image.size)


def _fault(answer: Answer, gold: Answer, image_wh: tuple[int, int]) -> tuple[str, str] | None:
    """(reason, detail) if a text is not to be kept, else None."""
    if answer.status.is_failure:
        return answer.status.value, answer.detail
    if answer.status is not gold.status or not agree(answer.prompts, gold.prompts, image_wh):
        return "disagrees", "its answer is not the gold one"
    reasoning = answer.reasoning or ""
    if len(reasoning.split()) < MIN_WORDS:
        return "no_reasoning", f"fewer than {MIN_WORDS} words"
    if found := _COORDINATES.search(reasoning):
        return "coordinates", f"the reasoning says {found.group()!r}"
    if found := _GIVEN.search(reasoning):
        return "mentions_answer", f"the reasoning says {found.group()!r}"
    return None


def agree(found: Sequence[MaskPrompt], gold: Sequence[MaskPrompt], image_wh: tuple[int, int]) -> bool:
    """Whether prompts in original pixels say the same, whatever their order.

    Each gold prompt has one of its own with a box of IoU at least MIN_BOX_IOU (or none, as the gold one), and
    points of the same labels in the same order, none farther off than MAX_POINT_SHIFT of the diagonal.
    """
    shift_px = MAX_POINT_SHIFT * math.hypot(*image_wh)
    left = list(found)
    for one in gold:
        match = next((other for other in left if _same(one, other, shift_px)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _same(one: MaskPrompt, other: MaskPrompt, shift_px: float) -> bool:
    if (one.box_xyxy is None) != (other.box_xyxy is None) or one.labels != other.labels:
        return False
    if one.box_xyxy and other.box_xyxy and box_iou(one.box_xyxy, other.box_xyxy) < MIN_BOX_IOU:
        return False
    return all(math.dist(a, b) <= shift_px for a, b in zip(one.points_xy, other.points_xy, strict=True))
