"""A fake segmenter for tests and for rewards on boxes alone: what is prompted is the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segrl.masks import box_to_mask
from segrl.segmenters.protocol import Embedding, check_frames
from segrl.types import MaskPrompt, Point

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

DISC_RADIUS = 0.05
"""Radius of a point's disc, as a share of the image's longer side."""


class BoxSegmenter:
    """A box is a filled rectangle; points without a box are discs around the foreground points."""

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """Nothing but the sizes."""
        return [Embedding((image.height, image.width), {}) for image in images]

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`. Points beside a box, and background points, change nothing."""
        import numpy as np
        import torch

        masks = []
        for embedding, image_prompts in zip(embeddings, prompts, strict=True):
            check_frames(image_prompts)
            rows = [_draw(prompt, embedding.image_hw) for prompt in image_prompts]
            stacked = np.stack(rows) if rows else np.zeros((0, *embedding.image_hw), dtype=bool)
            masks.append(torch.from_numpy(stacked))
        return masks


def _draw(prompt: MaskPrompt, image_hw: tuple[int, int]) -> np.ndarray:
    import numpy as np

    if prompt.box_xyxy is not None:
        return box_to_mask(prompt.box_xyxy, image_hw)
    mask = np.zeros(image_hw, dtype=bool)
    for point, label in zip(prompt.points_xy, prompt.labels, strict=True):
        if label == 1:
            mask |= disc(point, DISC_RADIUS * max(image_hw), image_hw)
    return mask


def disc(center_xy: Point, radius_px: float, image_hw: tuple[int, int]) -> np.ndarray:
    """`(H, W)` bool: the pixels at most `radius_px` from the pixel that holds `center_xy`, itself included."""
    import numpy as np

    x, y = int(center_xy[0]), int(center_xy[1])
    ys, xs = np.ogrid[: image_hw[0], : image_hw[1]]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius_px**2
