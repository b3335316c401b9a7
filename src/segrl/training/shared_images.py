"""An image that several rows of a batch share is encoded once.

GRPO repeats each query's image for every completion of its group, in the rollout and again in the
update, and the vision tower would encode every copy. Equal images give equal features, so encoding
each once and handing the features out changes nothing but the time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def share_images(model: nn.Module) -> bool:
    """Makes a Qwen-VL model's vision tower encode equal images of a call once, in training and generation alike.

    Returns whether `model` has such a tower (`visual`, called with patch rows and `grid_thw`);
    another model is left as it is. Calling it twice changes nothing more.
    """
    tower = next((module for name, module in model.named_modules() if name.split(".")[-1] == "visual"), None)
    if tower is None or not hasattr(tower, "spatial_merge_size"):
        return False
    if not getattr(tower, "segrl_shares_images", False):
        tower.forward = _sharing(tower.forward)
        tower.segrl_shares_images = True
    return True


def _sharing(encode: Any) -> Any:
    @functools.wraps(encode)
    def forward(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        sizes = grid_thw.prod(-1).tolist()
        images = hidden_states.split(sizes)
        place = first_equal(images, grid_thw.tolist())
        firsts = sorted(set(place))
        if len(firsts) == len(images):
            return encode(hidden_states, grid_thw=grid_thw, **kwargs)
        output = encode(torch.cat([images[i] for i in firsts]), grid_thw=grid_thw[firsts], **kwargs)
        order = [firsts.index(i) for i in place]
        return _hand_out(output, [sizes[i] for i in firsts], order)

    return forward


def first_equal(images: Sequence[torch.Tensor], grids: Sequence[Sequence[int]]) -> list[int]:
    """For each image, the index of the first one with the same grid and the same values."""
    marks = torch.stack([image[:, ::7].sum(dtype=torch.float64) for image in images]).tolist()
    seen: dict[tuple[Any, ...], list[int]] = {}
    place = []
    for i, image in enumerate(images):
        alike = seen.setdefault((*grids[i], marks[i]), [])
        first = next((j for j in alike if torch.equal(images[j], image)), i)
        if first == i:
            alike.append(i)
        place.append(first)
    return place


def _hand_out(output: Any, sizes: Sequence[int], order: Sequence[int]) -> Any:
    """Features of distinct images, `sizes[k]` patches each → those of the images in `order`, however deep they lie."""
    if isinstance(output, torch.Tensor):
        patches_per_row = sum(sizes) // output.shape[0]
        parts = output.split([size // patches_per_row for size in sizes])
        return torch.cat([parts[k] for k in order])
    if isinstance(output, dict):  # ModelOutput is one; its class keeps its fields
        return type(output)(**{key: _hand_out(value, sizes, order) for key, value in output.items()})
    if isinstance(output, (list, tuple)):
        return type(output)(_hand_out(value, sizes, order) for value in output)
    return output
