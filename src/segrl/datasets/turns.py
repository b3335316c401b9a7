"""Transcripts of turns for a cold start, made from any masks: a damaged answer, its mask, and what corrects it.

An example begins with a damaged mask prompt (too wide, cut, shifted, elsewhere), or with what a policy answered to it
in an evaluation, whose mask the segmenter makes. It is corrected where the mask errs: a negative point in the largest
false region, a positive one in the largest missed; a mask that is mostly wrong is begun anew, and one that is right
ends the conversation. The last turn of each is what is learned; the others are only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrl import segmenters
from segrl.answers import Move, follow
from segrl.datasets.gold import gold_answer, gold_prompts, spread_points
from segrl.datasets.rows import Examples
from segrl.errors import DataError
from segrl.files import read_rows
from segrl.masks import box_to_mask
from segrl.segmenters import Segmenter, segment
from segrl.types import ORIGINAL, Answer, Box, Example, MaskPrompt, Segmentation, Status

LEAST_REGION = 0.002
"""A false or missed region is worth a point from this share of the image on (and from 9 pixels)."""

Wording = Literal["plain", "short"]
WORDINGS: Mapping[str, Mapping[str, str]] = {
    "plain": {
        "too much": "too much at ({x},{y})",
        "missing": "missing at ({x},{y})",
        "and": ", ",
        "anew": "it is elsewhere. ",
        "done": "it fits",
    },
    "short": {"too much": " {x},{y}: no", "missing": " {x},{y}: yes", "and": ";", "anew": ": no.", "done": ": yes"},
}
"""How a transcript says what is wrong; `short` has the tiny policy's own words."""


@dataclass(frozen=True)
class Said:
    """One turn of a transcript.

    prompts: what it names, in original pixels; points alone after the first turn are added. reasoning: in the words
    of the example, or "". text: the whole turn, where a policy wrote it. whole: the right answer, for formats that
    cannot say points alone. stands: the masks after it; None for the turn to be learned. anew: the turn before it was
    mostly wrong.
    """

    move: Move
    prompts: tuple[MaskPrompt, ...] = ()
    reasoning: str = ""
    whole: tuple[MaskPrompt, ...] = ()
    stands: Segmentation | None = None
    anew: bool = False
    text: str | None = None


@dataclass(frozen=True)
class TranscriptOptions:
    """The options of `turns`.

    seed: of all draws. segmenter: makes the masks of damaged prompts, `grabcut` or another name; null damages the
    masks themselves. continues: whether it goes on from the earlier mask. first: share of examples that stay as they
    are, to teach the first answer. right: share of the others that begin with the right answer, to teach when to stop.
    own: share of the rest that begin with the example's own mask prompts, where it has some, undamaged. answers: the
    directory of a finished evaluation on these examples, whose readable answers take the place of their own mask
    prompts: a policy learns to correct the faults that it makes, and not to repeat its reasoning.
    from_masks: corrections are made from the masks also where the example has mask prompts of its own.
    longest: turns of a transcript at most. good: from this IoU on the mask is right. lost: below it the answer is begun
    anew. wording: see `WORDINGS`.
    """

    seed: int = 0
    segmenter: str | None = "grabcut"
    continues: bool = True
    first: float = 0.3
    right: float = 0.2
    own: float = 0.0
    answers: str | None = None
    from_masks: bool = False
    longest: int = 3
    good: float = 0.9
    lost: float = 0.3
    wording: Wording = "plain"

    def __post_init__(self) -> None:
        if type(self.seed) is not int or self.seed < 0 or type(self.longest) is not int or self.longest < 2:
            raise DataError(f"turns needs whole numbers, seed from 0 and longest from 2: {self}")
        for name in ("first", "right", "own", "good", "lost"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"turns.{name} is a share, from 0 to 1: {self}")
        if self.wording not in WORDINGS:
            raise DataError(f"turns.wording is {' or '.join(WORDINGS)}, not {self.wording!r}")


class Transcripts(Examples):
    """Each example with `meta["turns"]`, a list of `Said`; the same options always give the same transcripts.

    Raises DataError for wrong options.
    """

    def __init__(self, examples: Sequence[Example], options: Mapping[str, object]) -> None:
        try:
            self.options = TranscriptOptions(**options)  # type: ignore[arg-type]  # checked where it is built
        except TypeError as error:
            raise DataError(f'turns is {{"seed": 0}} and other options, not {options!r}: {error}') from error
        self.made_of = (examples,)
        self._answers = {} if self.options.answers is None else _answers(Path(self.options.answers), examples)

    def __len__(self) -> int:
        return len(self.made_of[0])

    @cached_property
    def _segmenter(self) -> Segmenter | None:
        return None if self.options.segmenter is None else segmenters.load(self.options.segmenter)

    def example(self, place: int) -> Example:
        example, options = self.made_of[0][place], self.options
        draw = np.random.default_rng([options.seed, place])
        turns: list[Said] = []
        if example.targets.any() and draw.random() >= options.first:
            turns = self._begun(example, draw)
        said = (*turns, self._next(example, turns[-1].stands) if turns else _first(example))
        return replace(example, meta={**example.meta, "turns": said, "wording": options.wording})

    def _begun(self, example: Example, draw: np.random.Generator) -> list[Said]:
        """The turns that are only read: a damaged or a right answer, then corrections, at most `longest` − 1."""
        begins = self._first_turn(example, draw)
        turns = [replace(begins, stands=self._mask(example, begins.prompts, None, draw))]
        for _ in range(int(draw.integers(1, self.options.longest)) - 1):
            following = self._next(example, turns[-1].stands)
            if following.move is Move.DONE:
                break
            turns.append(replace(following, stands=self._mask(example, following.prompts, turns[-1].stands, draw)))
        return turns

    def _first_turn(self, example: Example, draw: np.random.Generator) -> Said:
        """The answer that is to be judged; its mask is not made yet."""
        reasoning = str(example.meta.get("reasoning") or "")
        if draw.random() < self.options.right:
            return Said(Move.ANSWER, gold_answer(example), reasoning)
        if draw.random() < self.options.own:
            if (example.id, example.query) in self._answers:
                return self._answers[example.id, example.query]
            if "prompts" in example.meta:
                return Said(Move.ANSWER, tuple(gold_prompts(example)), reasoning)
        return Said(Move.ANSWER, damaged(example, draw), reasoning)

    def _mask(
        self,
        example: Example,
        prompts: tuple[MaskPrompt, ...],
        before: Segmentation | None,
        draw: np.random.Generator,
    ) -> Segmentation:
        answer = Answer(Status.OK, prompts)
        if self._segmenter is None:
            return damaged_mask(example, answer, draw)
        if before is not None:
            followed = follow(answer, before.answer.prompts)
            pairs = zip(followed.prompts, followed.goes_on_from, strict=True)
            keeps = self.options.continues and before.logits is not None
            answer = replace(answer, prompts=tuple(_going_on(prompt, i, before, keeps) for prompt, i in pairs))
        return segment(self._segmenter, [example.image], [answer], keeps_logits=True)[0]

    def _next(self, example: Example, stands: Segmentation | None) -> Said:
        """What corrects the mask that stands."""
        assert stands is not None
        mask, truth = stands.union.cpu().numpy(), example.truth
        whole = gold_answer(example) if self.options.from_masks else tuple(gold_prompts(example))
        overlap = (mask & truth).sum() / max((mask | truth).sum(), 1)
        if overlap < self.options.lost:
            return Said(Move.ANSWER, whole, str(example.meta.get("reasoning") or ""), whole, anew=True)
        points = [] if overlap >= self.options.good else correcting_points(mask, truth)
        if not points:
            return Said(Move.DONE)
        where, labels = zip(*points, strict=True)
        return Said(Move.POINTS, (MaskPrompt(None, where, labels, ORIGINAL),), whole=whole)


def _answers(directory: Path, examples: Sequence[Example]) -> dict[tuple[str, str], Said]:
    """The readable answers of an evaluation by id and query. Raises DataError where they are not to these examples."""
    path = directory / "records.jsonl"
    if not path.exists():
        raise DataError(f"turns.answers: there is no {path}: give the directory of an evaluation (segrl eval --out)")
    try:
        rows = [row for row in read_rows(path) if row["status"] == Status.OK.value]
        found = {(row["id"], row["query"]): _answered(row) for row in rows if row["prompts"]}
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"turns.answers: {path} does not hold the records of an evaluation: {error!r}") from error
    asked = [examples[i] for i in range(min(16, len(examples)))]
    if not any((example.id, example.query) in found for example in asked):
        raise DataError(
            f"turns.answers: {path} has a readable answer to none of the first {len(asked)} examples: "
            "give the directory of a finished evaluation of the same data set"
        )
    return found


def _answered(row: Mapping[str, Any]) -> Said:
    prompts = tuple(MaskPrompt.from_json(prompt, ORIGINAL) for prompt in row["prompts"])
    return Said(Move.ANSWER, prompts, row["reasoning"] or "", text=row["text"])


def _going_on(prompt: MaskPrompt, i: int | None, before: Segmentation, keeps: bool) -> MaskPrompt:
    return (
        replace(prompt, prior_logits=before.logits[i])
        if keeps and i is not None and before.logits is not None
        else prompt
    )


def _first(example: Example) -> Said:
    return Said(Move.ANSWER, tuple(gold_prompts(example)), str(example.meta.get("reasoning") or ""))


def correcting_points(mask: np.ndarray, truth: np.ndarray) -> list[tuple[tuple[float, float], int]]:
    """The points that correct a `(H, W)` bool mask most: (x, y) with its label, the larger error first.

    The deepest pixel of the largest false region with label 0, of the largest missed region with label 1, where a
    region is not smaller than `LEAST_REGION`.
    """
    from scipy import ndimage

    found = []
    for errors, label in ((mask & ~truth, 0), (truth & ~mask, 1)):
        regions, count = ndimage.label(errors)
        if count == 0:
            continue
        areas = np.bincount(regions.ravel())[1:]
        if areas.max() >= max(9, LEAST_REGION * mask.size):
            largest = regions == 1 + int(areas.argmax())
            found += [(int(areas.max()), point, label) for point in spread_points(largest, 1)]
    return [(point, label) for _, point, label in sorted(found, key=lambda one: -one[0])]


def damaged(example: Example, draw: np.random.Generator) -> tuple[MaskPrompt, ...]:
    """The right answer with every box damaged, and a point or none in each."""
    height, width = example.truth.shape
    found = []
    for prompt in gold_answer(example):
        assert prompt.box_xyxy is not None  # gold_prompt gives one
        x1, y1, x2, y2 = prompt.box_xyxy
        how = draw.choice(["wide", "cut", "shift", "elsewhere"], p=[0.5, 0.2, 0.2, 0.1])
        sides = np.array([x2 - x1, y2 - y1] * 2)
        if how == "wide":
            moved = np.array([-1, -1, 1, 1]) * draw.uniform(0.05, 0.7, 4) * sides
        elif how == "cut":
            moved = np.array([1, 1, -1, -1]) * draw.uniform(0.0, 0.35, 4) * sides
        else:
            far = 0.4 if how == "shift" else 3.0
            moved = np.tile(draw.uniform(-far, far, 2), 2) * sides
        box = _within(np.array([x1, y1, x2, y2]) + moved, width, height)
        point = (float(draw.uniform(box[0], box[2] - 1)), float(draw.uniform(box[1], box[3] - 1)))
        n_points = int(draw.integers(0, 2))
        found.append(MaskPrompt(box, (point,) * n_points, (1,) * n_points, ORIGINAL))
    return tuple(found)


def _within(box: np.ndarray, width: int, height: int) -> Box:
    """A box moved and cut to lie in the image, at least three pixels wide and high."""
    w, h = min(max(box[2] - box[0], 3.0), width), min(max(box[3] - box[1], 3.0), height)
    x, y = min(max(box[0], 0.0), width - w), min(max(box[1], 0.0), height - h)
    return (float(x), float(y), float(x + w), float(y + h))


def damaged_mask(example: Example, answer: Answer, draw: np.random.Generator) -> Segmentation:
    """Masks without a segmenter: the target grown or shrunk, with a box added or taken away."""
    import torch
    from scipy import ndimage

    masks = []
    for target in example.targets:
        steps = int(draw.integers(1, max(2, round(0.15 * np.sqrt(max(target.sum(), 1))))))
        change = ndimage.binary_dilation if draw.random() < 0.5 else ndimage.binary_erosion
        mask = change(target, iterations=steps)
        ys, xs = np.nonzero(target if target.any() else ~target)
        i, reach = int(draw.integers(len(xs))), float(draw.uniform(0.2, 0.6) * np.sqrt(len(xs)))
        patch = box_to_mask((xs[i] - reach / 2, ys[i] - reach / 2, xs[i] + reach, ys[i] + reach), target.shape)
        masks.append(mask | patch if draw.random() < 0.5 else mask & ~patch)
    return Segmentation(answer, torch.from_numpy(np.stack(masks)))
