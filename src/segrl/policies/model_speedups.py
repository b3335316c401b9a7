"""Faster parts for models of transformers: a key-value cache with room to grow, patch embeddings as matrix products.

The cache of transformers concatenates old and new keys for every token, a copy of the whole cache each time: a quarter
of the time of the rollouts of `segrl quickstart`. Here the tensors have room at their end; used up, it doubles.

The Qwen-VL families cut an image into patches before the model and embed each by a `Conv3d` whose kernel is as large
as the patch. Convolution kernels are slow at that, on CPUs above all: with bfloat16, their gradient took half of the
update of `segrl quickstart`. The product with the flattened weight is the same sum in another order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.cache_utils import DynamicCache, DynamicLayer

ROOM = 64
"""Tokens of room at the least."""


class RoomyLayer(DynamicLayer):
    """Keys and values `(batch, heads, tokens, size)` as the start of larger tensors."""

    keys: torch.Tensor
    values: torch.Tensor
    _store: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of new tokens; returns all of them. See `DynamicLayer.update`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if self._store is None or not self._lies_in(self._store) or self._store[0].shape[-2] < new:
            self._store = (self._enlarged(self.keys, key_states), self._enlarged(self.values, value_states))
        keys, values = self._store
        keys[:, :, old:new], values[:, :, old:new] = key_states, value_states
        self.keys, self.values = keys[:, :, :new], values[:, :, :new]
        return self.keys, self.values

    def _lies_in(self, store: tuple[torch.Tensor, torch.Tensor]) -> bool:
        """Whether the keys are still the start of the store: selecting, repeating and resetting make others."""
        return self.keys.data_ptr() == store[0].data_ptr() and self.keys.shape[0] == store[0].shape[0]

    @staticmethod
    def _enlarged(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        length = old.shape[-2] if old.numel() else 0
        batch, heads, more, size = new.shape
        store = new.new_empty(batch, heads, max(2 * length, length + more + ROOM), size)
        if length:
            store[:, :, :length] = old
        return store


def roomy_cache(model: Any) -> DynamicCache:
    """The cache that `generate` would make for a model, with room in its full-attention layers."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def keep_room(model: Any) -> None:
    """Make `model.generate` use `roomy_cache` where it would use a plain dynamic one; twice changes nothing more."""
    generate = model.generate
    if (
        hasattr(generate, "segrl_keeps_room")
        or model.config.is_encoder_decoder
        or not model._supports_default_dynamic_cache()
    ):
        return

    @functools.wraps(generate)
    def generate_with_room(*args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("generation_config") or model.generation_config
        if kwargs.get("use_cache", config.use_cache) is not False and config.cache_implementation is None:
            kwargs.setdefault("past_key_values", roomy_cache(model))
        return generate(*args, **kwargs)

    generate_with_room.segrl_keeps_room = True  # type: ignore[attr-defined]
    model.generate = generate_with_room


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
