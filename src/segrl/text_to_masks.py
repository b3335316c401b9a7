"""From a policy's text to masks: the one implementation for training, evaluation, the command line and the web.

text ──► answer format ──► Answer ──► original pixels ──► segmenter ──► masks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segrl.answers import Move, follow
from segrl.coordinates import to_original, without_outside
from segrl.segmenters import Segmenter, check_takes, segment
from segrl.types import Answer, Frame, Reading, Segmentation, Status

if TYPE_CHECKING:
    from PIL import Image

    from segrl.answers import AnswerFormat


@dataclass(frozen=True)
class TextToMasks:
    """How one policy's texts become masks.

    answer_format: reads the text. frame_for: the frame of the policy's numbers for an image of
    `(width, height)`. segmenter: turns mask prompts into masks. reading: how texts are read; training pays for
    the strict reading, who wants masks takes the lenient one, under which a box outside the image is left out
    and the other objects stay. max_mask_pixels: an answer whose masks hold more pixels together is BAD_VALUES, and of
    the instances of a phrase the surest are kept; None: any number.
    Raises ModelError where the answer format needs words and the segmenter takes none.
    """

    answer_format: AnswerFormat
    frame_for: Callable[[tuple[int, int]], Frame]
    segmenter: Segmenter
    reading: Reading = "strict"
    max_mask_pixels: int | None = None

    def __post_init__(self) -> None:
        check_takes(self.segmenter, self.answer_format.needs, f"the answer format {self.answer_format.name} needs")

    def read(
        self,
        texts: Sequence[str],
        images: Sequence[Image.Image],
        *,
        image_ids: Sequence[str] | None = None,
        truncated: Sequence[bool] | None = None,
        earlier: Sequence[Segmentation | None] | None = None,
        continues: bool = True,
    ) -> list[Segmentation]:
        """One Segmentation per text: its answer in original pixels and its masks `(N, H, W)` bool.

        images: the original image of each text. image_ids: equal exactly for equal images of this
        call. truncated: which texts were cut off (default: none). earlier: for texts of a conversation, what stood
        before each (None: nothing yet); an answer then means what `answers.follow` says, the segmenter goes on from
        the earlier mask where `continues` says so, and the `logits` of the result are there for the next turn.
        """
        cut_off = truncated if truncated is not None else [False] * len(texts)
        written = [self._parsed(text, cut, one.size) for text, cut, one in zip(texts, cut_off, images, strict=True)]
        answers = written
        if self.reading == "lenient":
            answers = [without_outside(answer, image.size) for answer, image in zip(written, images, strict=True)]
        if earlier is not None:
            triples = zip(answers, images, earlier, strict=True)
            answers = [_after(to_original(answer, image.size), before, continues) for answer, image, before in triples]
        answers = [self._bounded(answer, image.size) for answer, image in zip(answers, images, strict=True)]
        found = segment(
            self.segmenter,
            images,
            answers,
            image_ids=image_ids,
            keeps_logits=earlier is not None,
            max_mask_pixels=self.max_mask_pixels,
        )
        return [replace(one, written=answer) for one, answer in zip(found, written, strict=True)]

    def read_samples(
        self, texts: Sequence[str], image: Image.Image, *, image_id: str, truncated: Sequence[bool]
    ) -> Iterator[Segmentation]:
        """As `read` for several texts about one image, for who lets go of each Segmentation before taking the next.

        Where `max_mask_pixels` is set, the masks of half as many pixels are made together, or of one answer.
        """
        for places in self._together(texts, image.size, truncated):
            part = slice(places[0], places[-1] + 1)
            yield from _let_go(
                self.read(
                    texts[part],
                    [image] * len(places),
                    image_ids=[image_id] * len(places),
                    truncated=truncated[part],
                )
            )

    def _together(self, texts: Sequence[str], image_wh: tuple[int, int], truncated: Sequence[bool]) -> list[list[int]]:
        if self.max_mask_pixels is None:
            return [list(range(len(texts)))]
        room = self.max_mask_pixels / 2 / (image_wh[0] * image_wh[1])
        groups: list[list[int]] = []
        count = 0
        for i, (text, cut) in enumerate(zip(texts, truncated, strict=True)):
            own = len(self._parsed(text, cut, image_wh).prompts)
            if not groups or count + own > room:
                groups.append([])
                count = 0
            groups[-1].append(i)
            count += own
        return groups

    def shared_by(self, n: int) -> TextToMasks:
        """The same for one of `n` answers whose masks are in memory at once: each has its share of the pixels."""
        return self if self.max_mask_pixels is None else replace(self, max_mask_pixels=self.max_mask_pixels // n)

    def masks(self, answers: Sequence[Answer], images: Sequence[Image.Image]) -> list[Segmentation]:
        """One Segmentation per answer that somebody drew or edited, as `segmenters.segment` makes it."""
        return segment(self.segmenter, images, answers, max_mask_pixels=self.max_mask_pixels)

    def _parsed(self, text: str, truncated: bool, image_wh: tuple[int, int]) -> Answer:
        frame = self.frame_for(image_wh)
        return self.answer_format.parse(text, truncated=truncated, frame=frame, reading=self.reading)

    def _bounded(self, answer: Answer, image_wh: tuple[int, int]) -> Answer:
        n_pixels = len(answer.prompts) * image_wh[0] * image_wh[1]
        if self.max_mask_pixels is None or n_pixels <= self.max_mask_pixels:
            return answer
        detail = f"{len(answer.prompts)} masks of {image_wh[0]}×{image_wh[1]} pixels are more than are made at once"
        return replace(answer, status=Status.BAD_VALUES, prompts=(), detail=detail)


def _let_go(found: list[Segmentation]) -> Iterator[Segmentation]:
    """Each in turn, held here no longer."""
    found.reverse()
    while found:
        yield found.pop()


def _after(answer: Answer, before: Segmentation | None, continues: bool) -> Answer:
    """An answer in original pixels as it is meant after an earlier one, whose logits its prompts go on from."""
    if answer.status is not Status.OK or before is None:
        return answer
    followed = follow(answer, before.answer.prompts)
    prompts = [
        prompt
        if i is None or before.logits is None or not continues
        else replace(prompt, prior_logits=before.logits[i])
        for prompt, i in zip(followed.prompts, followed.goes_on_from, strict=True)
    ]
    # What was added completes the answer before: together they hold the parts of both.
    parts = answer.parts | before.answer.parts if followed.move is Move.POINTS else answer.parts
    return replace(answer, prompts=tuple(prompts), parts=parts)
