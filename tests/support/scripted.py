"""A policy for tests that answers each request with a text of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from segrl.errors import ModelError
from segrl.policies import Completion
from segrl.types import RELATIVE_1000, Frame

if TYPE_CHECKING:
    from PIL import Image

Key = Callable[["Image.Image", str], str]


def by_prompt(image: Image.Image, prompt: str) -> str:
    """The text prompt itself."""
    return prompt


class ScriptedPolicy:
    """Answers each request with the text under its key.

    texts: key → one text, or a sequence of texts, one for each sample (used in turn when more
    samples are asked for). key: what a request is looked up by, the text prompt by default.
    default: the text for a key that is not there; without it that is a ModelError.
    """

    def __init__(
        self,
        texts: Mapping[str, str | Sequence[str]],
        *,
        key: Key = by_prompt,
        default: str | None = None,
        answer_format: str = "seg-r1",
        frame: Frame = RELATIVE_1000,
    ) -> None:
        self.answer_format = answer_format
        self._texts, self._key, self._default, self._frame = texts, key, default, frame

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """The frame given when it was built, for every image."""
        return self._frame

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
        """The texts of each request; nothing is ever truncated and every option but `num_samples` is ignored."""
        answers = []
        for image, prompt in zip(images, prompts, strict=True):
            texts = self._lookup(self._key(image, prompt))
            answers.append([Completion(texts[i % len(texts)]) for i in range(num_samples)])
        return answers

    def _lookup(self, key: str) -> Sequence[str]:
        found = self._texts.get(key, self._default)
        if not found and found != "":
            raise ModelError(f"the script holds no text for {key!r}")
        return (found,) if isinstance(found, str) else found
