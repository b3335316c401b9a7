"""What a segmenter is: an image encoded once, and any number of mask prompts decoded from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from segrl.errors import FrameError, ModelError
from segrl.types import FrameKind, MaskPrompt

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Embedding:
    """One encoded image: its original size and the tensors that the segmenter decodes from.

    Only the segmenter that made it can read the tensors.
    """

    image_hw: tuple[int, int]
    tensors: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Segmenter(Protocol):
    """A frozen promptable segmenter."""

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """One embedding per image, in order; images may differ in size. Raises ImageTooLarge."""
        ...

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """Masks of `prompts[i]` on `embeddings[i]`: bool `(n_i, H_i, W_i)` at the original size, one per prompt.

        An image without prompts gives `(0, H_i, W_i)`. A mask depends on its own image and prompt
        only, not on what else stands in the batch. Raises FrameError unless every prompt is in
        original pixels.
        """
        ...


@runtime_checkable
class ScoringSegmenter(Segmenter, Protocol):
    """A segmenter that says how good it expects its masks to be."""

    def decode_scored(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """`decode` with the IoU that the segmenter expects of each mask: float32 `(n_i,)`, about 0 to 1."""
        ...


@dataclass(frozen=True)
class Decoded:
    """What one decode gives for n prompts of one image.

    masks: bool `(n, H, W)`. scores: float32 `(n,)`, the expected IoU; None from a segmenter that expects nothing.
    logits: float32 `(n, h, w)`, what a later turn gives as `prior_logits`; None where nobody asked for them.
    """

    masks: torch.Tensor
    scores: torch.Tensor | None = None
    logits: torch.Tensor | None = None


@runtime_checkable
class ContinuingSegmenter(Segmenter, Protocol):
    """A segmenter that goes on from an earlier mask (`MaskPrompt.prior_logits`)."""

    def decode_turn(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[Decoded]:
        """`decode` with the logits that a later turn needs, in the one pass."""
        ...


@dataclass(frozen=True)
class LowResolution:
    """What the decoder says about n prompts: logits `(n, h, w)` float32 and predicted IoU `(n,)` float32."""

    logits: torch.Tensor
    scores: torch.Tensor


class ImageTooLarge(ModelError):
    """One image alone does not fit in the device's memory; `image` is the one."""

    def __init__(self, image: Image.Image, message: str) -> None:
        super().__init__(message)
        self.image = image


def check_frames(prompts: Iterable[MaskPrompt]) -> None:
    """Raise FrameError unless every prompt is in original pixels."""
    for prompt in prompts:
        if prompt.frame.kind is not FrameKind.ORIGINAL:
            raise FrameError(
                f"a segmenter takes original pixels, not {prompt.frame.kind.value}: use coordinates.to_original first"
            )
