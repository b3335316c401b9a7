"""The one road from a policy's text to masks; training, evaluation, the command line and the web take it.

text ──► answer format ──► Answer ──► original pixels ──► segmenter ──► masks
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segrl.segmenters import Segmenter, segment
from segrl.types import Answer, Frame, Segmentation

if TYPE_CHECKING:
    from PIL import Image

    from segrl.answers import AnswerFormat


@dataclass(frozen=True)
class TextToMasks:
    """How one policy's texts become masks.

    answer_format: reads the text. frame_for: the frame of the policy's numbers for an image of
    `(width, height)`. segmenter: turns mask prompts into masks.
    """

    answer_format: AnswerFormat
    frame_for: Callable[[tuple[int, int]], Frame]
    segmenter: Segmenter

    def read(
        self,
        texts: Sequence[str],
        images: Sequence[Image.Image],
        *,
        image_ids: Sequence[str] | None = None,
        truncated: Sequence[bool] | None = None,
    ) -> list[Segmentation]:
        """One Segmentation per text: its answer in original pixels and its masks `(N, H, W)` bool.

        images: the original image of each text. image_ids: equal exactly for equal images of this
        call. truncated: which texts were cut off (default: none).
        """
        cut_off = truncated if truncated is not None else [False] * len(texts)
        answers = [
            self.answer_format.parse(text, truncated=cut, frame=self.frame_for(image.size))
            for text, cut, image in zip(texts, cut_off, images, strict=True)
        ]
        return segment(self.segmenter, images, answers, image_ids=image_ids)

    def masks(self, answers: Sequence[Answer], images: Sequence[Image.Image]) -> list[Segmentation]:
        """One Segmentation per answer that somebody drew or edited, as `segmenters.segment` makes it."""
        return segment(self.segmenter, images, answers)
