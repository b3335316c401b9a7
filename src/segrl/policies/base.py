"""The interface of policies, images and text prompts in, texts out; the one that is no model; the seeds of sampling.

A seed is derived from the request's content, so that a sample does not depend on its batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from segrl.types import ORIGINAL, Frame

if TYPE_CHECKING:
    from PIL import Image

    from segrl.types import Frame


@dataclass(frozen=True)
class Completion:
    """One generated text.

    text: special tokens kept; the end-of-sequence token and padding removed; begins with an opening <think> that
    the chat template wrote. truncated: generation stopped without an
    end-of-sequence token. n_tokens: tokens generated, the end token counted. seconds: wall time of
    its batch divided by the batch size, so that the sum over completions is the total time.
    """

    text: str
    truncated: bool = False
    n_tokens: int = 0
    seconds: float = 0.0


@runtime_checkable
class Policy(Protocol):
    """A model that reads an image and a text prompt and writes an answer.

    answer_format: the default format of this policy.
    """

    answer_format: str

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """The frame of the numbers it writes about an original image of `image_wh` pixels."""
        ...

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """`num_samples` completions for each pair of original image and text prompt, in their order.

        `temperature` 0 is greedy (and then all samples of a pair are equal); above 0 tokens are
        drawn from the whole softmax at that temperature, seeded by `seed`.
        """
        ...


@dataclass(frozen=True)
class Exchange:
    """A turn that is over, as the policy reads it: its text, and the picture and words that answered it."""

    text: str
    picture: Image.Image
    words: str


@dataclass(frozen=True)
class Chat:
    """A request and the turns since: an original image, its text prompt, and what was said and shown after."""

    image: Image.Image
    prompt: str
    exchanges: tuple[Exchange, ...] = ()


@runtime_checkable
class ConversingPolicy(Policy, Protocol):
    """A policy that can be shown pictures after its answer."""

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str], **options: Any) -> list[list[Completion]]:
        """See `Policy.generate`: the replies to chats without exchanges."""
        return self.reply([Chat(*pair) for pair in zip(images, prompts, strict=True)], **options)

    def reply(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """As `generate`, of conversations; one without exchanges is answered as `generate` answers it."""
        ...


@runtime_checkable
class StreamingPolicy(Policy, Protocol):
    """A policy that can stream its text."""

    def stream(self, image: Image.Image, prompt: str, *, max_new_tokens: int) -> Generator[str, None, Completion]:
        """Yields the greedy completion's text in pieces; returns the completion.

        Closing the generator stops the generation.
        """
        ...


def stream(policy: Policy, image: Image.Image, prompt: str, *, max_new_tokens: int) -> Generator[str, None, Completion]:
    """`StreamingPolicy.stream`; a policy that cannot stream yields its text as one piece."""
    if isinstance(policy, StreamingPolicy):
        return (yield from policy.stream(image, prompt, max_new_tokens=max_new_tokens))
    ((completion,),) = policy.generate([image], [prompt], max_new_tokens=max_new_tokens)
    yield completion.text
    return completion


def request_seed(seed: int, prompt: str, image: Image.Image) -> int:
    """63 bits derived from the user's seed and the content of a request."""
    digest = hashlib.sha256(f"{seed} {image.size} {prompt}".encode(errors="surrogatepass"))
    digest.update(image.tobytes())
    return _bits(digest.digest())


def sample_seed(request: int, occurrence: int, sample: int) -> int:
    """63 bits for one sample of a request; `occurrence` counts equal requests in one call."""
    return _bits(hashlib.sha256(f"{request} {occurrence} {sample}".encode()).digest())


def _bits(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> 1


WORDS = "words"
"""The name of the policy and of its answer format."""


class WordsPolicy:
    """No model: the query itself is the answer, a phrase for a segmenter that takes words."""

    answer_format = WORDS

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
