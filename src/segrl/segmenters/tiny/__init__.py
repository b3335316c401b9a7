"""The tiny segmenter that ships with segrl (2.8 million parameters): one crop of the image per prompt, one network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segrl.masks import mask_to_box
from segrl.segmenters.protocol import Decoded, Embedding, LowResolution, check_frames
from segrl.segmenters.tiny.network import (
    DEVIATION,
    MEAN,
    OUTSIDE,
    Crop,
    carry_over,
    crop_around,
    rasterize,
    resize,
)
from segrl.types import Box, MaskPrompt, Point

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from segrl.segmenters.tiny.network import CropNetwork

WEIGHTS = Path(__file__).parent / "weights" / "model.safetensors"
SIDE, FIRST_SIDE = 128, 96
"""Sides of the last crop and of those before it, in the network's pixels: it was trained on both."""
LOGITS_SIDE = 256
"""Longer side of `decode_logits`' answers, which cover the whole image (less where the image is smaller)."""


@dataclass(frozen=True)
class _Seen:
    """What the network answered: logits `(h, w)` float32 that cover `crop`, and the expected IoU."""

    logits: np.ndarray
    crop: Crop
    score: float = 0.0

    def box(self) -> Box | None:
        """The mask's box in pixels of the image; None for an empty mask."""
        box = mask_to_box(self.logits > 0)
        if box is None:
            return None
        rows, columns = self.logits.shape
        x, y = (self.crop[2] - self.crop[0]) / columns, (self.crop[3] - self.crop[1]) / rows
        left, top = self.crop[:2]
        return (left + box[0] * x, top + box[1] * y, left + box[2] * x, top + box[3] * y)


class TinySegmenter:
    """A promptable segmenter of 2.8 million parameters that ships with segrl; see `segrl/segmenters/tiny/weights`.

    network: with its normalisations folded in (`network.fuse`), in float32. passes: how often each prompt is
    answered; from the second on with the mask so far as `prior_logits`, in a crop that fits it.

    Prompts are answered one at a time, so that a mask never depends on what else is asked. A prompt with negative
    points only asks for nothing: its mask is empty and its score 0.
    """

    def __init__(self, network: CropNetwork, *, device: torch.device, passes: int = 2) -> None:
        import torch

        self.device = device
        self.passes = passes
        self.network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.decoder_calls = 0

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """The pixels themselves, as RGB `(H, W, 3)` uint8: what there is to compute belongs to a prompt."""
        import numpy as np
        import torch

        rgb = [np.array(image.convert("RGB")) for image in images]
        return [Embedding(pixels.shape[:2], {"rgb": torch.from_numpy(pixels)}) for pixels in rgb]

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`; the masks are on the CPU."""
        return [masks for masks, _ in self.decode_scored(embeddings, prompts)]

    def decode_scored(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """See `ScoringSegmenter.decode_scored`."""
        found = zip(embeddings, self._answers(embeddings, prompts), strict=True)
        return [(_masks(answers, embedding.image_hw), _scores(answers)) for embedding, answers in found]

    def decode_turn(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[Decoded]:
        """See `ContinuingSegmenter.decode_turn`."""
        found = zip(embeddings, self._answers(embeddings, prompts), strict=True)
        return [
            Decoded(_masks(answers, embedding.image_hw), _scores(answers), _logits(answers, embedding.image_hw))
            for embedding, answers in found
        ]

    def decode_logits(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[LowResolution]:
        """Logits over the whole image, longer side `LOGITS_SIDE`: what a later turn gives as `prior_logits`."""
        found = zip(embeddings, self._answers(embeddings, prompts), strict=True)
        return [LowResolution(_logits(answers, embedding.image_hw), _scores(answers)) for embedding, answers in found]

    def _answers(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> Iterator[list[_Seen]]:
        check_frames(prompt for image_prompts in prompts for prompt in image_prompts)
        for embedding, image_prompts in zip(embeddings, prompts, strict=True):
            rgb = embedding.tensors["rgb"].numpy()
            yield [self._answer(rgb, prompt) for prompt in image_prompts]

    def _answer(self, rgb: np.ndarray, prompt: MaskPrompt) -> _Seen:
        import numpy as np

        whole = (0, 0, rgb.shape[1], rgb.shape[0])
        positive = [point for point, label in zip(prompt.points_xy, prompt.labels, strict=True) if label]
        seen = None
        if prompt.prior_logits is not None:
            seen = _Seen(prompt.prior_logits.detach().float().cpu().numpy(), whole)
        if prompt.box_xyxy is None and not positive and seen is None:
            return _Seen(np.full((1, 1), OUTSIDE, np.float32), whole)
        for number in range(self.passes):
            side = SIDE if number == self.passes - 1 else FIRST_SIDE
            seen = self._pass(rgb, prompt, positive, seen, side)
        assert seen is not None
        return seen

    def _pass(
        self, rgb: np.ndarray, prompt: MaskPrompt, positive: Sequence[Point], seen: _Seen | None, side: int
    ) -> _Seen:
        """One run of the network on a crop of `side`, with what was seen before as the earlier mask."""
        import torch

        crop = crop_around(rgb.shape[:2], prompt.box_xyxy, positive, None if seen is None else seen.box())
        prior = None if seen is None else carry_over(seen.logits, seen.crop, crop, (side, side))
        maps = rasterize(crop, side, prompt.box_xyxy, prompt.points_xy, prompt.labels, prior)
        pixels = torch.from_numpy(resize(rgb[crop[1] : crop[3], crop[0] : crop[2]], (side, side)))
        colours = (pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
        inputs = torch.cat([colours.permute(2, 0, 1), torch.from_numpy(maps)])[None]
        inputs = inputs.to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            logits, score = self.network(inputs)
        self.decoder_calls += 1
        return _Seen(logits[0].cpu().numpy(), crop, float(score.sigmoid()))


def _masks(answers: Sequence[_Seen], image_hw: tuple[int, int]) -> torch.Tensor:
    """Bool `(n, H, W)`."""
    import numpy as np
    import torch

    masks = np.zeros((len(answers), *image_hw), dtype=bool)
    for mask, answer in zip(masks, answers, strict=True):
        x1, y1, x2, y2 = answer.crop
        mask[y1:y2, x1:x2] = resize(answer.logits, (x2 - x1, y2 - y1)) > 0
    return torch.from_numpy(masks)


def _scores(answers: Sequence[_Seen]) -> torch.Tensor:
    import torch

    return torch.tensor([answer.score for answer in answers], dtype=torch.float32)


def _logits(answers: Sequence[_Seen], image_hw: tuple[int, int]) -> torch.Tensor:
    """Float32 `(n, h, w)` over the whole image."""
    import torch

    logits = [_over_image(answer, image_hw) for answer in answers]
    return torch.stack(logits) if logits else torch.zeros((0, 1, 1))


def _over_image(answer: _Seen, image_hw: tuple[int, int]) -> torch.Tensor:
    """The logits on a grid over the whole image, float32 `(h, w)`."""
    import torch

    scale = min(1.0, LOGITS_SIDE / max(image_hw))
    wh = (max(1, round(image_hw[1] * scale)), max(1, round(image_hw[0] * scale)))
    return torch.from_numpy(carry_over(answer.logits, answer.crop, (0, 0, image_hw[1], image_hw[0]), wh))


def read_network(path: str | Path | None = None) -> CropNetwork:
    """The network with the weights of a safetensors file (default: those that ship), in float32.

    Raises ModelError for a file that holds none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from segrl.errors import ModelError
    from segrl.segmenters.tiny.network import CropNetwork, fuse

    network = fuse(CropNetwork())
    try:
        network.load_state_dict({name: one.float() for name, one in load_file(path or WEIGHTS).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{path or WEIGHTS} holds no weights of the tiny segmenter: {first}") from error
    return network
