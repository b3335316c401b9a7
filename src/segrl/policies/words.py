"""No model at all: the query itself is the answer, a phrase for a segmenter that takes words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segrl.policies.base import Completion
from segrl.types import ORIGINAL, Frame

if TYPE_CHECKING:
    from PIL import Image

NAME = "words"


class WordsPolicy:
    """The policy named `words`. It writes what it is asked, in the answer format `words`, which asks the query."""

    answer_format = NAME

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """It writes no numbers."""
        return ORIGINAL

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 0,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """See `Policy.generate`; every sample is the prompt."""
        return [[Completion(prompt)] * num_samples for prompt in prompts]
