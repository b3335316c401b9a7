"""A conversation of turns: the policy answers, is shown its mask, and corrects it or says that it is done.

text ──► `answers.follow` ──► text → masks ──► mask ──► `feedback` (a picture and a line) ──► the next text

Nothing here asks a policy: the pipeline, evaluation and the environment of training hold a `Conversation` each and
hand its texts to `take`. What stands at the end is the last turn that could be read, so a broken one loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from segrl import overlay
from segrl.answers import Move, says_done
from segrl.errors import SegrlError
from segrl.text import check_options
from segrl.types import Status

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from segrl.text_to_masks import TextToMasks
    from segrl.types import Segmentation

Show = Literal["outline", "cutout", "crop"]
SHOWS: tuple[Show, ...] = ("outline", "cutout", "crop")

INSTRUCTION = (
    "If the outline fits, answer <answer>done</answer>. If not, say in <think></think> what is wrong and answer again "
    "in the same format: a new box, or further points alone (label 1 on what is missing, label 0 on what is too much)."
)
"""What a policy is told with every picture, for those that were not trained for turns too."""

MAX_TURNS = 16
"""Turns that one conversation may have: each adds a picture and a text to what the policy reads."""

LONGEST_DETAIL = 60
"""Characters of what was wrong with a turn, as the policy is told."""

CROP_MARGIN = 0.25
"""How much of the object's longer side the crop shows around it."""


@dataclass(frozen=True)
class TurnView:
    """What a policy is shown after a turn.

    show: `outline` draws the mask's outline over the image; `cutout` leaves the image on the mask alone and darkens
    the rest; `crop` is the outline in a crop around the mask. instruction: whether `INSTRUCTION` follows the facts.
    continues: whether the segmenter goes on from the earlier mask, where it can. Raises SegrlError for another `show`.
    """

    show: Show = "outline"
    instruction: bool = True
    continues: bool = True

    def __post_init__(self) -> None:
        if self.show not in SHOWS:
            raise SegrlError(f"show is {', '.join(SHOWS[:-1])} or {SHOWS[-1]}, not {self.show!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> TurnView:
        """The view of plain options. Raises SegrlError for one that there is not."""
        check_options("the view of turns", cls, options)
        return cls(**options)  # type: ignore[arg-type]  # checked above and where it is built


@dataclass(frozen=True)
class Turn:
    """One text of the policy and what stood after it.

    move: what it did. stands: the answer and masks that stand now, which a broken turn and "done" leave as they were.
    own: this text's own reading, None for "done". truncated, n_tokens, seconds: of the text, as in `Completion`.
    by: who answered, "policy", or "person" where somebody took over (the text is then what `person` was given).
    """

    text: str
    move: Move
    stands: Segmentation
    own: Segmentation | None = None
    truncated: bool = False
    n_tokens: int = 0
    seconds: float = 0.0
    by: str = "policy"


@dataclass(frozen=True)
class Conversation:
    """An image, a query and the turns about them so far."""

    image: Image.Image
    query: str
    turns: tuple[Turn, ...] = field(default=())

    @property
    def stands(self) -> Segmentation | None:
        """The last answer that could be read; while there is none, the last that could not; None before any."""
        return self.turns[-1].stands if self.turns else None

    @property
    def is_over(self) -> bool:
        """Whether the policy said that it is done, or was cut off."""
        return bool(self.turns) and (self.turns[-1].move is Move.DONE or self.turns[-1].truncated)

    @property
    def n_mask_pixels(self) -> int:
        """Pixels of the masks of all turns."""
        return sum(turn.own.masks.numel() for turn in self.turns if turn.own is not None)

    @property
    def n_tokens(self) -> int:
        """Tokens that the policy wrote."""
        return sum(turn.n_tokens for turn in self.turns)


def take(
    text_to_masks: TextToMasks,
    conversations: Sequence[Conversation],
    texts: Sequence[str],
    *,
    truncated: Sequence[bool] | None = None,
    image_ids: Sequence[str] | None = None,
    continues: bool = True,
) -> list[Conversation]:
    """Each conversation with its next turn: one decode for all, and no encoding of an image that the cache holds.

    A text that says "done" is not read further; as the first of its conversation it answers nothing (NO_ANSWER).
    """
    cut = list(truncated) if truncated is not None else [False] * len(texts)
    befores = [_good(conversation.stands) for conversation in conversations]
    images = [one.image for one in conversations]
    read = text_to_masks.read(texts, images, image_ids=image_ids, truncated=cut, earlier=befores, continues=continues)
    return [
        replace(conversation, turns=(*conversation.turns, _turn(conversation, text, own, was_cut)))
        for conversation, text, own, was_cut in zip(conversations, texts, read, cut, strict=True)
    ]


def _good(stands: Segmentation | None) -> Segmentation | None:
    return None if stands is None or stands.answer.status.is_failure else stands


def _turn(conversation: Conversation, text: str, own: Segmentation, truncated: bool) -> Turn:
    before = _good(conversation.stands)
    if says_done(text) and not truncated:
        return Turn(text, Move.DONE, own if before is None else before, truncated=truncated)
    if own.answer.status.is_failure:
        return Turn(text, Move.BROKEN, own if before is None else before, own, truncated)
    return Turn(text, _move(own, before), own, own, truncated)


def _move(own: Segmentation, before: Segmentation | None) -> Move:
    """Points alone are those that somebody wrote without a box, after something that they can be added to."""
    written = () if own.written is None else own.written.prompts
    is_added = before is not None and bool(before.answer.prompts) and bool(written)
    return Move.POINTS if is_added and all(prompt.box_xyxy is None for prompt in written) else Move.ANSWER


def person(conversation: Conversation, stands: Segmentation, text: str = "") -> Conversation:
    """The conversation with a turn of a person, who took over: what they drew stands, and the policy sees it next.

    text: what the policy would have written to say it, which it reads as its own earlier answer; empty where its
    format cannot say it.
    """
    turn = Turn(text, Move.ANSWER, stands, stands, by="person")
    return replace(conversation, turns=(*conversation.turns, turn))


def to_row(turn: Turn, iou: float) -> dict[str, Any]:
    """One turn as logs and records hold it: its text, and of what stood after it prompts (pixels), mask and IoU."""
    from segrl.masks import to_rle

    answer = turn.stands.answer
    return {
        "text": turn.text,
        "move": turn.move.value,
        "status": answer.status.value,
        "tokens": turn.n_tokens,
        "prompts": [prompt.to_json() for prompt in answer.prompts],
        "mask": to_rle(turn.stands.union.cpu().numpy()),
        "iou": iou,
    }


def feedback(conversation: Conversation, view: TurnView) -> tuple[Image.Image, str]:
    """The picture and the words that answer the last turn: the mask that stands, and one line of facts about it.

    The picture is RGB at the image's size, a crop's smaller. Raises ValueError before the first turn.
    """
    if conversation.stands is None:
        raise ValueError("there is nothing to show before the first turn")
    mask = conversation.stands.union.cpu().numpy()
    words = facts(conversation)
    return picture(conversation.image, mask, view.show), f"{words} {INSTRUCTION}" if view.instruction else words


def facts(conversation: Conversation) -> str:
    """One line on the last turn: what was wrong with it, if anything, the mask's area, and the segmenter's own score.

    The score is the lowest of the objects'.
    """
    turn, stands = conversation.turns[-1], conversation.stands
    assert stands is not None
    parts = []
    if turn.move is Move.BROKEN and turn.own is not None:
        parts.append(f"not read: {(turn.own.answer.detail or turn.own.answer.status.value)[:LONGEST_DETAIL]}")
    share = float(stands.union.float().mean())
    parts.append(f"area {share:.0%}" if stands.answer.status is Status.OK else "area 0%")
    if stands.scores is not None and len(stands.scores):
        parts.append(f"score {float(stands.scores.min()):.2f}")
    return ", ".join(parts)


def picture(image: Image.Image, mask: np.ndarray, show: Show) -> Image.Image:
    """The image with a `(H, W)` bool mask shown on it; see `TurnView`."""
    if show == "cutout":
        return overlay.spotlight(image, mask)
    drawn = overlay.outline(image, mask)
    return drawn if show == "outline" else _crop(drawn, mask)


def _crop(drawn: Image.Image, mask: np.ndarray) -> Image.Image:
    from segrl.masks import mask_to_box

    box = mask_to_box(mask)
    if box is None:
        return drawn
    margin = CROP_MARGIN * max(box[2] - box[0], box[3] - box[1])
    low = (max(0, int(box[0] - margin)), max(0, int(box[1] - margin)))
    return drawn.crop((*low, min(drawn.width, int(box[2] + margin)), min(drawn.height, int(box[3] + margin))))
