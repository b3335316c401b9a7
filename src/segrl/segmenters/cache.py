"""Embeddings kept by the image's content: in memory, and on disk where a directory is given.

On disk: one safetensors file each, written whole or not at all, within a size limit.

    DIR/<encoder>/<key>.safetensors     metadata: image height and width, checksum of the tensors

`<encoder>` stands for weights, configuration and dtype, so that two encoders never share a file.
Processes may share a directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segrl.recent import Recent
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


class MemoryCache(Recent[Embedding]):
    """The most recently used embeddings, at most `max_bytes` of them, in host memory.

    dtype: floating-point tensors are kept in it (None: as they are; then the cache changes no mask).
    """

    def __init__(self, max_bytes: int, dtype: torch.dtype | None = None) -> None:
        super().__init__(max_bytes, lambda embedding: embedding.nbytes)
        self.dtype = dtype

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep a copy of `embedding` on the host; one larger than `max_bytes` is not kept."""
        kept = on_host(embedding, self.dtype)
        if kept.nbytes <= self.max_bytes:
            super().put(key, kept)


def on_host(embedding: Embedding, dtype: torch.dtype | None) -> Embedding:
    """`embedding` in host memory of its own, its floating-point tensors in `dtype` (None: as they are)."""
    tensors = {}
    for name, tensor in embedding.tensors.items():
        wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", wanted, copy=tensor.device.type != "cpu").contiguous()
    return replace(embedding, tensors=tensors)


logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
UNFINISHED = ".tmp"


class DiskCache:
    """The most recently used embeddings of one encoder, in `directory`, which never grows beyond `max_bytes`.

    encoder: fingerprint of what made the embeddings (`encoder_fingerprint`). dtype: as in
    `MemoryCache`. The limit is for the directory as a whole, other encoders' files included. A
    damaged file is removed and counts as missing.
    """

    def __init__(self, directory: Path | str, encoder: str, max_bytes: int, dtype: torch.dtype | None = None) -> None:
        self.directory = Path(directory)
        self.max_bytes = max_bytes
        self.dtype = dtype
        self._own = self.directory / (encoder if dtype is None else f"{encoder}-{str(dtype).removeprefix('torch.')}")
        self._own.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Embedding | None:
        """The embedding, now the most recently used; None if its file is missing or damaged."""
        from safetensors import SafetensorError

        path = self._path(key)
        try:
            embedding = _read(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            logger.warning("the cached embedding %s is damaged (%s): the image is encoded again", path, error)
            path.unlink(missing_ok=True)
            return None
        return embedding

    def put(self, key: str, embedding: Embedding) -> None:
        """Write the embedding, after removing the least recently used files that have to go for it."""
        from safetensors.torch import save

        kept = on_host(embedding, self.dtype)
        height, width = kept.image_hw
        metadata = {"height": str(height), "width": str(width), "checksum": _checksum(kept.tensors)}
        content = save(dict(kept.tensors), metadata)
        if len(content) > self.max_bytes:
            return
        path = self._path(key)
        with self._alone():
            self._make_room(len(content), path)
            unfinished = path.with_suffix(UNFINISHED)
            unfinished.write_bytes(content)
            unfinished.replace(path)

    def _path(self, key: str) -> Path:
        return self._own / f"{key}{SUFFIX}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time in the directory, so that the limit holds for all of them together."""
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, nbytes: int, for_path: Path) -> None:
        """Remove files, least recently used first, until `nbytes` more fit; and what dead processes left unfinished."""
        files = []
        for entry in self.directory.glob("*/*"):
            if entry.suffix == UNFINISHED:
                entry.unlink(missing_ok=True)
            elif entry != for_path:
                with suppress(FileNotFoundError):  # a reader removed it as damaged
                    state = entry.stat()
                    files.append((state.st_mtime_ns, state.st_size, entry))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total + nbytes <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def encoder_fingerprint(model: Any, processor: Any) -> str:
    """32 hexadecimal digits for weights, configuration, dtype and preprocessing: what an embedding depends on."""
    import transformers

    digest = hashlib.blake2b(digest_size=16)
    digest.update(transformers.__version__.encode())
    digest.update(model.config.to_json_string().encode())
    digest.update(processor.image_processor.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor.detach().cpu().contiguous()))
    return digest.hexdigest()


def _read(path: Path) -> Embedding:
    from safetensors import safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if metadata is None or metadata["checksum"] != _checksum(tensors):
        raise ValueError("its checksum differs")
    return Embedding((int(metadata["height"]), int(metadata["width"])), tensors)


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.flatten().view(torch.uint8).numpy().data


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()
