"""The result of a pipeline for one image and one query, as masks, pictures and files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segrl import exports, overlay
from segrl.answers import Move
from segrl.coordinates import frame_hint
from segrl.masks import mask_to_box
from segrl.types import Answer, MaskPrompt, Status, Votes

if TYPE_CHECKING:
    import supervision

    from segrl.turns import Conversation
    from segrl.types import Segmentation


@dataclass(frozen=True)
class Result:
    """The result for one image and one query.

    image: RGB as it was read. masks: `(N, H, W)` bool at the image's size, one per object found;
    N = 0 where nothing was found or the answer could not be read, and `status` tells which.
    answer: status, reasoning and mask prompts in original pixels. text: what the policy wrote.
    scores: `(N,)` float32, the IoU that the segmenter predicts for each mask (about 0 to 1, not
    calibrated, and not whether it is the right object); None from a segmenter that predicts none
    (GrabCut). votes: how far several samples agree, None without a vote; samples: their texts.
    hint: a warning if the numbers seem to be in another frame (`coordinates.frame_hint`), else "".
    turns: where it was asked for several turns, a result for each, with that turn's text and the answer and masks that
    stood after it; this result's own are those of the last that could be read. move: what such a turn did (an answer,
    further points, done, broken). n_tokens: tokens written, of all turns; 0 where nobody counted.
    """

    image: Image.Image
    query: str
    text: str
    answer: Answer
    masks: np.ndarray
    scores: np.ndarray | None = None
    hint: str = ""
    turns: tuple[Result, ...] = ()
    move: Move = Move.ANSWER
    n_tokens: int = 0
    votes: Votes | None = None
    samples: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: Image.Image, query: str, text: str, one: Segmentation, samples: tuple[str, ...] = ()) -> Result:
        """A text that was read, with its masks."""
        scores = None if one.scores is None else one.scores.cpu().numpy()
        hint = frame_hint(one.written, image.size)
        return cls(
            image, query, text, one.answer, one.masks.cpu().numpy(), scores, hint, votes=one.votes, samples=samples
        )

    @classmethod
    def of_turns(cls, conversation: Conversation) -> Result:
        """A conversation: what stands at its end, and each of its turns."""
        image, query = conversation.image, conversation.query
        turns = [
            replace(cls.of(image, query, turn.text, turn.stands), move=turn.move, n_tokens=turn.n_tokens)
            for turn in conversation.turns
        ]
        stands = conversation.turns[-1].stands
        text = next((turn.text for turn in conversation.turns if turn.own is stands), conversation.turns[-1].text)
        return replace(turns[-1], text=text, turns=tuple(turns), n_tokens=conversation.n_tokens)

    @property
    def status(self) -> Status:
        """OK, NO_TARGET ("nothing there"), or what was wrong with the answer."""
        return self.answer.status

    @property
    def reasoning(self) -> str | None:
        """The text between the think tags; None without them."""
        return self.answer.reasoning

    @property
    def repairs(self) -> tuple[str, ...]:
        """What the lenient reading repaired or dropped, one line each; empty for a valid answer."""
        return self.answer.repairs

    @property
    def prompts(self) -> tuple[MaskPrompt, ...]:
        """The boxes and points, one mask prompt per mask, in original pixels."""
        return self.answer.prompts

    @property
    def confidence(self) -> np.ndarray | None:
        """`(N,)` of each mask: the share of the samples that hold it, of a vote (float64: 7 of 10 is not below 0.7);
        else the segmenter's score (float32).

        None where there is neither.
        """
        return self.scores if self.votes is None else np.array(self.votes.agreement, dtype=np.float64)

    @property
    def least_confidence(self) -> float | None:
        """Of the answer as a whole: 0 for one that cannot be read, else the lowest of its masks, or the share of a vote
        that says "nothing there"; None where nothing is known."""
        scores = None if self.scores is None else self.scores.tolist()
        return exports.least_confidence(self.status, self.votes, scores)

    def surer(self, min_confidence: float) -> Result:
        """The result without the masks whose `confidence` is lower; as it is where none is known.

        Without any mask left it is NO_TARGET, and `answer.detail` says why.
        """
        sure = self.confidence
        if sure is None or (sure >= min_confidence).all():
            return self
        kept = np.flatnonzero(sure >= min_confidence)
        votes = self.votes
        if votes is not None:
            votes = replace(votes, agreement=tuple(votes.agreement[i] for i in kept))
        prompts = tuple(self.prompts[i] for i in kept)
        scores = None if self.scores is None else self.scores[kept]
        if prompts:
            answer = replace(self.answer, prompts=prompts)
        else:
            detail = f"no object has a confidence of {min_confidence:g} or more"
            answer = replace(self.answer, status=Status.NO_TARGET, prompts=(), detail=detail)
        return replace(self, answer=answer, masks=self.masks[kept], scores=scores, votes=votes)

    @property
    def mask(self) -> np.ndarray:
        """`(H, W)` bool: all masks as one."""
        return np.asarray(self.masks.any(axis=0))

    def overlay(self) -> Image.Image:
        """A copy of the image with masks, boxes and points drawn over it (`segrl.overlay`)."""
        return overlay.draw(self.image, self.masks, self.prompts)

    def _repr_png_(self) -> bytes:
        """The overlay, which a notebook shows for a result."""
        file = io.BytesIO()
        self.overlay().save(file, "PNG")
        return file.getvalue()

    def cutout(self) -> Image.Image:
        """The image as RGBA, transparent wherever no mask is."""
        return overlay.cutout(self.image, self.mask)

    def to_detections(self) -> supervision.Detections:
        """The masks as supervision's Detections: `xyxy` around each mask, `confidence`, class 0.

        An empty mask has the box (0, 0, 0, 0). `data["class_name"]` is the query.
        """
        import supervision

        count = len(self.masks)
        if count == 0:
            return supervision.Detections.empty()
        boxes = [mask_to_box(mask) or (0, 0, 0, 0) for mask in self.masks]
        return supervision.Detections(
            xyxy=np.array(boxes, dtype=np.float32),
            mask=self.masks,
            confidence=self.confidence,
            class_id=np.zeros(count, dtype=int),
            data={"class_name": np.array([self.query] * count)},
        )

    def save(self, out: Path | str, formats: Sequence[str] = ("coco", "png"), *, name: str = "image") -> list[Path]:
        """Writes the result in the formats of `segrl segment` (coco, yolo, rle, png, labelme, overlay, …) under `out`.

        The image is written there as well, as `<name>.png`. Returns the file or folder of each format. Raises
        SegrlError for a format that there is not.
        """
        chosen = [exports.get(one) for one in formats]
        place = Path(out)
        place.mkdir(parents=True, exist_ok=True)
        picture = place / f"{name}.png"
        self.image.save(picture)
        record = exports.record(str(picture), [self], file_name=picture.name, name=name)
        writers = [one(place, [self.query]) for one in chosen]
        for writer in writers:
            writer.add(record)
        return [writer.finish([record]) for writer in writers]


def by_doubt(results: Iterable[Result]) -> list[Result]:
    """The results with the least sure first (`Result.least_confidence`), then those of which nothing is known."""
    return exports.by_doubt(results, lambda result: result.least_confidence)
