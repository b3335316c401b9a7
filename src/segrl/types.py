"""The data types, from the data set to the score.

    Example ──► policy ──► text ──► Answer(MaskPrompt, …) ──► Segmentation ──► Score

All classes are frozen, and validated on construction. Importing this module does not import torch.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

MAX_PHRASE = 200
"""Characters of a mask prompt's phrase."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]


class Status(enum.Enum):
    """Outcome of parsing a completion, in the order in which the conditions are tested."""

    TRUNCATED = "truncated"
    """The completion was truncated before a complete answer."""
    NO_ANSWER = "no_answer"
    """No tags or list of the answer format."""
    BAD_SYNTAX = "bad_syntax"
    """An answer is present, but cannot be parsed."""
    BAD_VALUES = "bad_values"
    """Parsed, but not four finite numbers, an inverted box, labels outside {0, 1}, counts that differ."""
    NO_TARGET = "no_target"
    """The format's own way of saying that nothing in the image matches."""
    OK = "ok"

    @property
    def is_failure(self) -> bool:
        """True for everything but OK and NO_TARGET."""
        return self not in (Status.OK, Status.NO_TARGET)


Reading = Literal["strict", "lenient"]
"""How an answer is parsed: strictly, as in training and the evaluation protocol, or with recovery."""


class FrameKind(enum.Enum):
    """What coordinates refer to."""

    ORIGINAL = "original"
    """Pixels of the original image."""
    RESIZED = "resized"
    """Pixels of the image as resized for the policy; `Frame.size_wh` has the size."""
    RELATIVE_1000 = "relative_1000"
    """0–1000 along each side, whatever the size."""
    UNKNOWN = "unknown"
    """Not known: parsed without a frame. Conversions raise FrameError."""


@dataclass(frozen=True)
class Frame:
    """The coordinate frame of a mask prompt. `size_wh` (width, height) goes with RESIZED only."""

    kind: FrameKind
    size_wh: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.kind is FrameKind.RESIZED) != (self.size_wh is not None):
            raise ValueError("size_wh goes with a resized frame, and only with it")
        if self.size_wh is not None and min(self.size_wh) < 1:
            raise ValueError(f"a frame of size {self.size_wh} has no pixels")

    @classmethod
    def resized(cls, width: int, height: int) -> Frame:
        """Pixels of the image as resized to `width` × `height`."""
        return cls(FrameKind.RESIZED, (width, height))


ORIGINAL = Frame(FrameKind.ORIGINAL)
RELATIVE_1000 = Frame(FrameKind.RELATIVE_1000)
UNKNOWN_FRAME = Frame(FrameKind.UNKNOWN)


@dataclass(frozen=True)
class MaskPrompt:
    """The input of a segmenter: at most one box, points with labels, and words with example boxes.

    box_xyxy: `(x1, y1, x2, y2)` in `frame`, exclusive maximum, x1 < x2 and y1 < y2; or None.
    points_xy: `(x, y)` each, in `frame`. labels: 1 (foreground) or 0 (background), one per point.
    prior_logits: mask logits of an earlier turn, at the segmenter's low resolution, or None.
    phrase: a short noun phrase ("striped cat"), "" for none. exemplars_xyxy: boxes in `frame` around examples of what
    is meant (exemplar_labels 1) or not meant (0), as SAM 3 takes them.
    A phrase or examples alone ask for every instance; with a box or points they ask for the one that these mark.
    `segmenters.takes` says which of these a segmenter takes.
    Raises ValueError for values that are not finite, inverted boxes, other labels, counts that
    differ, a phrase of more than MAX_PHRASE characters, and a prompt that asks for nothing.
    """

    box_xyxy: Box | None = None
    points_xy: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    frame: Frame = UNKNOWN_FRAME
    prior_logits: torch.Tensor | None = field(default=None, compare=False, repr=False)
    phrase: str = ""
    exemplars_xyxy: tuple[Box, ...] = ()
    exemplar_labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.phrase:
            object.__setattr__(self, "phrase", self.phrase.strip())
        if self.box_xyxy is None and not self.points_xy and not self.phrase and 1 not in self.exemplar_labels:
            raise ValueError("a mask prompt needs a box, a point, a phrase or an example of what is meant")
        if len(self.phrase) > MAX_PHRASE:
            raise ValueError(f"a phrase of {len(self.phrase)} characters: at most {MAX_PHRASE}")
        if self.box_xyxy is not None:
            _check_box(self.box_xyxy)
        if len(self.points_xy) != len(self.labels):
            raise ValueError(f"{len(self.points_xy)} points but {len(self.labels)} labels")
        for label in self.labels:
            if type(label) is not int or label not in (0, 1):
                raise ValueError(f"labels are 0 or 1: {self.labels}")
        for point in self.points_xy:
            if not all(map(math.isfinite, point)):
                raise ValueError("points must be finite")
        if self.exemplars_xyxy or self.exemplar_labels:
            self._check_exemplars()

    def _check_exemplars(self) -> None:
        if len(self.exemplars_xyxy) != len(self.exemplar_labels):
            raise ValueError(f"{len(self.exemplars_xyxy)} example boxes but {len(self.exemplar_labels)} labels")
        if any(type(label) is not int or label not in (0, 1) for label in self.exemplar_labels):
            raise ValueError(f"labels are 0 or 1: {self.exemplar_labels}")
        for box in self.exemplars_xyxy:
            _check_box(box)

    @property
    def marks_one(self) -> bool:
        """Whether a box or points say which one is meant: one mask then, else as many as are found."""
        return self.box_xyxy is not None or bool(self.points_xy)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The box, if there is one, and the example boxes."""
        return (*(() if self.box_xyxy is None else (self.box_xyxy,)), *self.exemplars_xyxy)

    def to_json(self) -> dict[str, Any]:
        """The prompt as JSON holds it, `{"box_xyxy": …, "points_xy": …, "labels": …}`; the frame is not written.

        `phrase`, `exemplars_xyxy` and `exemplar_labels` stand there where the prompt has them.
        """
        found: dict[str, Any] = {"box_xyxy": self.box_xyxy, "points_xy": self.points_xy, "labels": self.labels}
        if self.phrase:
            found["phrase"] = self.phrase
        if self.exemplars_xyxy:
            found |= {"exemplars_xyxy": self.exemplars_xyxy, "exemplar_labels": self.exemplar_labels}
        return found

    @classmethod
    def from_json(cls, row: Mapping[str, Any], frame: Frame) -> MaskPrompt:
        """Inverse of `to_json`, with the numbers in `frame`.

        Raises KeyError, TypeError or ValueError for what is no mask prompt.
        """
        points = tuple((float(x), float(y)) for x, y in row["points_xy"])
        box = None if row["box_xyxy"] is None else _box(row["box_xyxy"])
        return cls(
            box,
            points,
            tuple(row["labels"]),
            frame,
            phrase=str(row.get("phrase", "")),
            exemplars_xyxy=tuple(map(_box, row.get("exemplars_xyxy", ()))),
            exemplar_labels=tuple(row.get("exemplar_labels", ())),
        )


def _check_box(box: Box) -> None:
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)) or x2 <= x1 or y2 <= y1:
        raise ValueError(f"not a box: {box}")


def _box(numbers: Any) -> Box:
    x1, y1, x2, y2 = map(float, numbers)
    return (x1, y1, x2, y2)


@dataclass(frozen=True)
class Answer:
    """A parsed answer. Only an OK answer has prompts, at least one.

    reasoning: the text between the think tags (to the end of the text if they never close), stripped
    of surrounding space, or None without them.
    detail: what is wrong, in one line; empty for a valid answer.
    parts: the parts of the format that were present and valid (for instance
    `{"think", "bbox", "points", "labels"}`), for format rewards.
    repairs: what the lenient reading repaired or dropped, one line each; empty if it changed nothing,
    and under the strict reading.
    says_none: a failure whose text says in prose that nothing is there ("There are no dogs in this image.").
    """

    status: Status
    prompts: tuple[MaskPrompt, ...] = ()
    reasoning: str | None = None
    detail: str = ""
    parts: frozenset[str] = frozenset()
    repairs: tuple[str, ...] = ()
    says_none: bool = False

    def __post_init__(self) -> None:
        if (self.status is Status.OK) != bool(self.prompts):
            raise ValueError(f"an answer with status {self.status.name} and {len(self.prompts)} prompts")


@dataclass(frozen=True)
class Example:
    """One image with one query.

    image: RGB, EXIF orientation applied. query: the user's words. targets: `(N, H, W)` bool, one
    mask per target at the image's size; N = 0 means "nothing there". ignore: `(H, W)` bool pixels
    excluded from every score, or None. tags: slices for the report, for instance
    `{"kind": "position"}`. image_id: equal if and only if the images are equal.
    """

    id: str
    image_id: str
    image: Image.Image
    query: str
    targets: np.ndarray
    ignore: np.ndarray | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hw = (self.image.height, self.image.width)
        if self.targets.dtype != bool or self.targets.ndim != 3 or self.targets.shape[1:] != hw:
            raise ValueError(
                f"targets must be bool (N, {hw[0]}, {hw[1]}), not {self.targets.dtype} {self.targets.shape}"
            )

    @property
    def truth(self) -> np.ndarray:
        """`(H, W)` bool: the union of the targets; all False where there are none."""
        return self.targets.any(axis=0)  # type: ignore[return-value]  # numpy types it as a scalar too


@dataclass(frozen=True)
class Votes:
    """How far several answers to one question agree.

    samples: how many there are. readable: those that could be read. nothing: those that say that nothing is there.
    agreement: for each mask of the chosen answer the share of the readable ones that hold it, above 0 to 1.
    """

    samples: int
    readable: int
    nothing: int
    agreement: tuple[float, ...] = ()

    @property
    def confidence(self) -> float:
        """Agreement on the answer as a whole: the lowest of its masks', or the share that says "nothing there"."""
        if self.agreement:
            return min(self.agreement)
        return self.nothing / self.readable if self.readable else 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "agreement": list(self.agreement)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Votes:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for a row that is none."""
        counts = (int(row["samples"]), int(row["readable"]), int(row["nothing"]))
        return cls(*counts, tuple(map(float, row["agreement"])))


@dataclass(frozen=True)
class Segmentation:
    """An answer and its masks: `(N, H, W)` bool at the original size, one per prompt; N = 0 without prompts.

    `answer` is in original pixels and clipped to the image; its status is BAD_VALUES
    if a box lies outside the image. scores: `(N,)` float32, the IoU that the segmenter
    predicts for each mask (about 0 to 1, not clamped); None from a segmenter that predicts none.
    written: the answer as it was parsed, in the policy's frame; None if nothing was parsed.
    logits: `(N, h, w)` float32, the `prior_logits` of a later turn; None if they were not requested,
    and from a segmenter that takes none.
    A phrase may find several instances: the answer then has a prompt for each, with its box; one that finds
    nothing has none. votes: how far several samples agree, None without a vote.
    """

    answer: Answer
    masks: torch.Tensor
    scores: torch.Tensor | None = None
    written: Answer | None = None
    logits: torch.Tensor | None = None
    votes: Votes | None = None

    @property
    def union(self) -> torch.Tensor:
        """`(H, W)` bool: the answer as one mask; all False without prompts."""
        return self.masks.any(dim=0)


@dataclass(frozen=True)
class Score:
    """One segmentation against its ground truth; every field but the counts in [0, 1].

    A failed answer scores 0 in `iou` and `s_measure` and has `union` = area of the ground truth
    (DESIGN: protocol). `iou` of NO_TARGET against nothing is 1; an OK answer on a no-target sample is 0.
    """

    status: Status
    iou: float
    s_measure: float
    intersection: int
    union: int
    target_area: int
    predicted_area: int
