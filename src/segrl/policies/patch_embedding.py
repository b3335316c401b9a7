"""Patch embeddings of vision towers as the matrix products that they are.

The Qwen-VL families cut an image into patches before the model and embed each by a `Conv3d` whose kernel is as large
as the patch. Convolution kernels are slow at that, on CPUs above all: with bfloat16, their gradient took half of the
update of `segrl quickstart`. The product with the flattened weight is the same sum in another order.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PatchProjection(nn.Conv3d):
    """A `Conv3d` for patches of its kernel's size: `(n, channels, frames, height, width)` to `(n, out, 1, 1, 1)`.

    Any other input is convolved as usual. Parameters and their names are those of `Conv3d`.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if tuple(input.shape[1:]) != tuple(self.weight.shape[1:]) or any(self.padding):
            return super().forward(input)
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def project_patches(model: nn.Module) -> None:
    """Make every `Conv3d` whose stride is its kernel a `PatchProjection`, in place; the parameters stay."""
    for module in model.modules():
        if type(module) is nn.Conv3d and module.stride == module.kernel_size and module.groups == 1:
            module.__class__ = PatchProjection
