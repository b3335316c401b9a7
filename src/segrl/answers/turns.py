"""What an answer means in a conversation of several turns, whatever its format.

A turn is one of three things: a whole answer, which takes the place of the one before; points alone, which are added
to the objects so far; or `<answer>done</answer>`, which ends the conversation.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from segrl.answers.mask_prompts import nearest_home
from segrl.coordinates import box_iou
from segrl.types import Answer, MaskPrompt, Point, Status

DONE = "<answer>done</answer>"
"""How a policy says that it leaves the mask as it is."""
DONE_PATTERN = r"(?:.*</think>)?\s*(?:<answer>\s*)?[Dd]one[.!]?\s*(?:</answer>\s*)?"
"""A whole text that says so, after any reasoning; the tags may be missing. Read in time linear in the text's length."""
SAME_BOX = 0.5
"""From this IoU on, a box means the object of an earlier box, and the segmenter goes on from that one's mask."""

_DONE = re.compile(DONE_PATTERN, re.DOTALL)


class Move(enum.Enum):
    """What a turn does."""

    ANSWER = "answer"
    """A whole answer, "nothing there" included."""
    POINTS = "points"
    """Points without a box, added to the objects so far."""
    DONE = "done"
    """The mask stays as it is, and the conversation ends."""
    BROKEN = "broken"
    """Nothing that can be read (`Answer.status` says why): the mask stays as it is."""


@dataclass(frozen=True)
class Followed:
    """An answer after an earlier one: its prompts, and for each the earlier prompt whose mask it goes on from, or None.

    A prompt that nothing was added to is the earlier object itself, with what it was decoded from.
    """

    move: Move
    prompts: tuple[MaskPrompt, ...]
    goes_on_from: tuple[int | None, ...]


def says_done(text: str) -> bool:
    """Whether a text says, after any reasoning, that the mask stays as it is.

    >>> says_done("<think>fits</think> <answer>done</answer>"), says_done("Done."), says_done("<answer>[]</answer>")
    (True, True, False)
    """
    return _DONE.fullmatch(text) is not None


def follow(answer: Answer, earlier: Sequence[MaskPrompt]) -> Followed:
    """What `answer` (in original pixels) means after the objects `earlier` (original pixels; none: it stands alone).

    With a box in it, it is a whole answer, and each prompt goes on from the mask of the earlier one whose box it
    overlaps most, from an IoU of `SAME_BOX` on. Points alone are added: to the only earlier object, else to the
    smallest whose box holds the point, else to the nearest.
    """
    if answer.status.is_failure:
        return Followed(Move.BROKEN, (), ())
    if answer.status is Status.NO_TARGET or not earlier:
        return Followed(Move.ANSWER, answer.prompts, (None,) * len(answer.prompts))
    if any(prompt.box_xyxy is not None for prompt in answer.prompts):
        return Followed(Move.ANSWER, answer.prompts, _alike(answer.prompts, earlier))
    return _added(answer.prompts, earlier)


def _alike(prompts: Sequence[MaskPrompt], earlier: Sequence[MaskPrompt]) -> tuple[int | None, ...]:
    """For each prompt the earlier one of the same object, each of which is given once; None for a new object."""
    pairs = sorted(
        ((box_iou(new.box_xyxy, old.box_xyxy), i, j))
        for i, new in enumerate(prompts)
        for j, old in enumerate(earlier)
        if new.box_xyxy is not None and old.box_xyxy is not None
    )
    found: dict[int, int] = {}
    for iou, i, j in reversed(pairs):
        if iou >= SAME_BOX and i not in found and j not in found.values():
            found[i] = j
    return tuple(found.get(i) for i in range(len(prompts)))


def _added(prompts: Sequence[MaskPrompt], earlier: Sequence[MaskPrompt]) -> Followed:
    points = [pair for prompt in prompts for pair in zip(prompt.points_xy, prompt.labels, strict=True)]
    new: list[list[tuple[Point, int]]] = [[] for _ in earlier]
    for point, label in points:
        home = nearest_home(point, earlier)
        if (point, label) not in zip(earlier[home].points_xy, earlier[home].labels, strict=True):
            new[home].append((point, label))
    merged = tuple(_with_points(old, own) for old, own in zip(earlier, new, strict=True))
    return Followed(Move.POINTS, merged, tuple(i if own else None for i, own in enumerate(new)))


def _with_points(prompt: MaskPrompt, points: Sequence[tuple[Point, int]]) -> MaskPrompt:
    if not points:
        return prompt
    where, labels = zip(*points, strict=True)
    return replace(prompt, points_xy=(*prompt.points_xy, *where), labels=(*prompt.labels, *labels))
