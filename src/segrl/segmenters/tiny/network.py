"""The tiny segmenter's network: a U-Net of residual blocks on one crop around the prompt, which is drawn into it.

Plain 3×3 convolutions, because that is what a processor's matrix units are fast at: in training, blocks of
depthwise convolutions with a third of the parameters took longer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from segrl.types import Box, Point

if TYPE_CHECKING:
    import numpy as np


CHANNELS = (32, 64, 128, 192)
BLOCKS = (0, 2, 2, 2)
INPUTS = 7
"""Red, green, blue, box, positive points, negative points, earlier mask: see `rasterize`."""


class ConvolutionNorm(nn.Sequential):
    """A convolution with batch normalisation, and a rectifier unless `is_linear`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, is_linear: bool = False) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([] if is_linear else [nn.ReLU(inplace=True)]))


def fuse(network: CropNetwork) -> CropNetwork:
    """`network`, changed: every normalisation is folded into its convolution. For inference."""
    for module in network.eval().modules():
        if isinstance(module, ConvolutionNorm):
            convolution, norm = module[0], module[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            module[0], module[1] = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network


class Residual(nn.Module):
    """Two convolutions beside the identity (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvolutionNorm(channels, channels)
        self.second = ConvolutionNorm(channels, channels, is_linear=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(n, channels, h, w)` to the same."""
        return functional.relu(features + self.second(self.first(features)))


class CropNetwork(nn.Module):
    """Inputs `(n, 7, s, s)` float to mask logits `(n, s, s)` and the logit of the expected IoU `(n,)`.

    s is a multiple of 16. Half the resolution of the crop is the finest that features are kept at, and little is
    computed there; the last convolution predicts the four pixels of each.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS, blocks: Sequence[int] = BLOCKS) -> None:
        super().__init__()
        self.stem = ConvolutionNorm(INPUTS, channels[0], stride=2)
        self.down = nn.ModuleList(
            [nn.Identity(), *(ConvolutionNorm(a, b, stride=2) for a, b in itertools.pairwise(channels))]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(count)))
            for width, count in zip(channels, blocks, strict=True)
        )
        deep_first = list(reversed(channels))
        self.reduce = nn.ModuleList(ConvolutionNorm(a, b, 1) for a, b in itertools.pairwise(deep_first))
        self.merge = nn.ModuleList(
            [*(Residual(width) for width in deep_first[1:-1]), ConvolutionNorm(channels[0], channels[0])]
        )
        self.mask = nn.Conv2d(channels[0], 4, 3, padding=1)
        self.score = nn.Sequential(nn.Linear(channels[-1] + 2, 64), nn.ReLU(inplace=True), nn.Linear(64, 1))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        features, kept = self.stem(inputs), []
        for down, stage in zip(self.down, self.stages, strict=True):
            features = stage(down(features))
            kept.append(features)
        deepest = kept.pop()
        for reduce, merge in zip(self.reduce, self.merge, strict=True):
            smaller = functional.interpolate(reduce(features), scale_factor=2.0, mode="nearest")
            features = merge(smaller + kept.pop())
        logits = functional.pixel_shuffle(self.mask(features), 2)[:, 0].float()
        return logits, self._score(deepest, logits.detach())

    def _score(self, deepest: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """From the deepest features, how sure the pixels are, and how much of the crop is object."""
        object_share = logits.sigmoid()
        doubt = (1 - (2 * object_share - 1).abs()).sum((1, 2)) / (object_share.sum((1, 2)) + 1)
        pooled = deepest.mean((2, 3)).float()
        facts = torch.stack([doubt, object_share.mean((1, 2))], dim=1)
        return self.score(torch.cat([pooled, facts], dim=1))[:, 0]


REACH = 1.6
"""Side of the crop, in sides of what the prompt spans."""
LEAST_SIDE = 16
"""Pixels of the image that a crop has at least, each way, where the image has them."""
SLIMMEST = 0.5
"""A crop's shorter side is at least this share of its longer, where the image has the pixels."""
POINT_SIGMA = 0.025
"""Width of the bell drawn at a point, as a share of the crop's side."""
OUTSIDE = -8.0
"""The logit that stands for pixels which the network did not see."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the red, green and blue of photographs (ImageNet's), in 0 to 1."""

Crop = tuple[int, int, int, int]
"""`(x1, y1, x2, y2)` in whole pixels of the image, exclusive maximum, within the image."""


def crop_around(
    image_hw: tuple[int, int], box: Box | None, positive: Sequence[Point], prior: Box | None, reach: float = REACH
) -> Crop:
    """The crop for a prompt: `reach` times what box, positive points and the earlier mask's box span together.

    Points alone, with no earlier mask, do not say how large the object is: the crop is the whole image.
    """
    spans = [span for span in (box, prior) if span is not None]
    if not spans:
        return 0, 0, image_hw[1], image_hw[0]
    spans += [(x, y, x + 1, y + 1) for x, y in positive]
    low = [min(span[axis] for span in spans) for axis in (0, 1)]
    high = [max(span[axis + 2] for span in spans) for axis in (0, 1)]
    sides = [(b - a) * reach for a, b in zip(low, high, strict=True)]
    sides = [max(side, SLIMMEST * max(sides), LEAST_SIDE) for side in sides]
    x, y = (
        _interval((a + b) / 2, side, size)
        for a, b, side, size in zip(low, high, sides, (image_hw[1], image_hw[0]), strict=True)
    )
    return x[0], y[0], x[1], y[1]


def _interval(centre: float, side: float, size: int) -> tuple[int, int]:
    """Whole pixels of `side` around `centre` within 0 to `size`; at least one pixel."""
    low = min(max(round(centre - side / 2), 0), size - 1)
    return low, max(min(round(centre + side / 2), size), low + 1)


def resize(pixels: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """`(h, w)` or `(h, w, c)` at another size: averaged where it shrinks, linear where it grows."""
    import cv2

    shrinks = wh[0] * wh[1] < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def rasterize(
    crop: Crop, side: int, box: Box | None, points: Sequence[Point], labels: Sequence[int], prior: np.ndarray | None
) -> np.ndarray:
    """The prompt as `(4, side, side)` float32: box (1 inside, −1 outside, by covered area; 0 without one), positive
    points, negative points (the highest of their bells, 0 to 1), and the earlier mask (−1 to 1; 0 without one).

    prior: the earlier mask's logits over the crop, `(side, side)` float32, or None.
    """
    import numpy as np

    maps = np.zeros((4, side, side), np.float32)
    scale_x, scale_y = side / (crop[2] - crop[0]), side / (crop[3] - crop[1])
    at = np.arange(side, dtype=np.float32)
    if box is not None:
        across = _covered(at, (box[0] - crop[0]) * scale_x, (box[2] - crop[0]) * scale_x)
        down = _covered(at, (box[1] - crop[1]) * scale_y, (box[3] - crop[1]) * scale_y)
        maps[0] = 2 * np.outer(down, across) - 1
    for (x, y), label in zip(points, labels, strict=True):
        across = _bell(at, (x + 0.5 - crop[0]) * scale_x - 0.5, side)
        down = _bell(at, (y + 0.5 - crop[1]) * scale_y - 0.5, side)
        channel = maps[1 if label else 2]
        np.maximum(channel, np.outer(down, across), out=channel)
    if prior is not None:
        maps[3] = np.tanh(prior / 2)
    return maps


def carry_over(logits: np.ndarray, seen: Crop, crop: Crop, wh: tuple[int, int]) -> np.ndarray:
    """Logits `(h, w)` that cover `seen`, read at the pixels of `crop` at size `wh`: float32."""
    import cv2
    import numpy as np

    rows, columns = logits.shape
    across, down = (seen[2] - seen[0]) / columns, (seen[3] - seen[1]) / rows
    step_x, step_y = (crop[2] - crop[0]) / wh[0] / across, (crop[3] - crop[1]) / wh[1] / down
    start_x = (crop[0] - seen[0]) / across + step_x / 2 - 0.5
    start_y = (crop[1] - seen[1]) / down + step_y / 2 - 0.5
    # From the pixels of the result to those of the source; a row and column of repetition keep the border's value.
    matrix = np.array([[step_x, 0, start_x + 1], [0, step_y, start_y + 1]], np.float64)
    padded = np.pad(logits.astype(np.float32), 1, mode="edge")
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(padded, matrix, wh, flags=how, borderValue=OUTSIDE)


def _covered(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """How much of each pixel lies between `low` and `high`."""
    import numpy as np

    return np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, 1)


def _bell(at: np.ndarray, centre: float, side: int) -> np.ndarray:
    import numpy as np

    return np.exp(-0.5 * ((at - centre) / (POINT_SIGMA * side)) ** 2)
