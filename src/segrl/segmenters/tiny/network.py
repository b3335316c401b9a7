"""The tiny segmenter's network: a U-Net of residual blocks on one crop.

Plain 3×3 convolutions, because that is what a processor's matrix units are fast at: in training, blocks of
depthwise convolutions with a third of the parameters took longer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

CHANNELS = (32, 64, 128, 192)
BLOCKS = (0, 2, 2, 2)
INPUTS = 7
"""Red, green, blue, box, positive points, negative points, earlier mask: see `crops.rasterize`."""


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
