"""Embeddings kept by the image's content: in memory, and on disk where a directory is given."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from segrl.segmenters.protocol import Embedding

if TYPE_CHECKING:
    import torch


class Store(Protocol):
    """Where embeddings are kept by key."""

    def get(self, key: str) -> Embedding | None:
        """The embedding, or None if it is not (or no longer) there."""
        ...

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep the embedding; others may have to go."""
        ...


class MemoryCache:
    """The most recently used embeddings, at most `max_bytes` of them, in host memory.

    dtype: floating-point tensors are kept in it (None: as they are; then the cache changes no mask).
    """

    def __init__(self, max_bytes: int, dtype: torch.dtype | None = None) -> None:
        self.max_bytes = max_bytes
        self.dtype = dtype
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._nbytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return self._nbytes

    def get(self, key: str) -> Embedding | None:
        """The embedding, now the most recently used; None if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep a copy of `embedding` on the host; one larger than `max_bytes` is not kept."""
        kept = on_host(embedding, self.dtype)
        if kept.nbytes > self.max_bytes:
            return
        with self._lock:
            if key in self._kept:
                self._nbytes -= self._kept.pop(key).nbytes
            self._kept[key] = kept
            self._nbytes += kept.nbytes
            while self._nbytes > self.max_bytes:
                self._nbytes -= self._kept.popitem(last=False)[1].nbytes


def on_host(embedding: Embedding, dtype: torch.dtype | None) -> Embedding:
    """`embedding` in host memory of its own, its floating-point tensors in `dtype` (None: as they are)."""
    tensors = {}
    for name, tensor in embedding.tensors.items():
        wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", wanted, copy=tensor.device.type != "cpu").contiguous()
    return replace(embedding, tensors=tensors)
