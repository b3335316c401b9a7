"""Segmenters by name."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from segrl.devices import parse_device, parse_dtype
from segrl.errors import ModelError
from segrl.segmenters.protocol import Segmenter
from segrl.text import check_options

if TYPE_CHECKING:
    import torch

    from segrl.segmenters.cache import DiskCache
    from segrl.segmenters.checkpoint import Checkpoint
    from segrl.segmenters.sam import SamSegmenter
    from segrl.segmenters.tiny import TinySegmenter

CACHE_BYTES = 2 * 2**30
CACHE_DIR_BYTES = 50 * 2**30


def load(name_or_path: str, **options: Any) -> Segmenter:
    """The segmenter called `name_or_path`.

    "grabcut": GrabCut, needs no weights (options: `max_side`, `threads`, see `GrabCut`).
    "tiny": the small network that ships with segrl (options: `device`, `passes`, `weights`, see `load_tiny`).
    "box": the fake that fills boxes. Everything else is a model of the SAM family, on the hub or in
    a directory (options: see `load_sam`); one process loads it once.
    Raises ModelError for a name or an option that there is not.
    """
    from segrl.segmenters.box import BoxSegmenter
    from segrl.segmenters.grabcut import GrabCut

    builders: dict[str, Any] = {"grabcut": GrabCut, "tiny": load_tiny, "box": BoxSegmenter}
    builder = builders.get(name_or_path)
    if builder is not None:
        check_options(f"the segmenter {name_or_path}", builder, options)
        try:
            return builder(**options)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the segmenter {name_or_path}: {error}") from error
    check_options(f"the segmenter {name_or_path}", load_sam, options)
    return load_sam(name_or_path, **options)


@lru_cache(maxsize=1)
def load_tiny(*, device: str | None = None, passes: int = 2, weights: str | None = None) -> TinySegmenter:
    """The segmenter that ships with segrl; the same object when asked again.

    device: as for `load_sam`. passes: see `TinySegmenter`. weights: another safetensors file of the same network, as
    `proof/segmenter.py ship` writes it. Raises ModelError for a file that is none.
    """
    from segrl.segmenters.tiny import TinySegmenter, read_network

    if passes < 1:
        raise ValueError(f"passes is a whole number from 1 on, not {passes!r}")
    return TinySegmenter(read_network(weights), device=parse_device(device), passes=passes)


@lru_cache(maxsize=1)
def load_sam(
    name_or_path: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    multimask: bool = False,
    mask_threshold: float = 0.0,
    cache_bytes: int = CACHE_BYTES,
    cache_dtype: str | None = None,
    cache_dir: str | None = None,
    cache_dir_bytes: int = CACHE_DIR_BYTES,
    encode_batch: int | None = None,
    decode_batch: int | None = None,
) -> SamSegmenter:
    """A SAM, SAM-HQ, SAM 2, SAM 3 tracker or EdgeTAM, frozen; the same object when asked again.

    device: default the process's own GPU under `accelerate`, else the first, else the CPU.
    dtype: "float32" (the default, whatever the checkpoint is saved in), "bfloat16" or "float16".
    multimask, mask_threshold: see `SamSegmenter`.
    cache_bytes: host memory for embeddings (SAM 2 keeps 4.2 million numbers an image: 16.8 MB in
    float32). cache_dir: keep them on disk as well, at most `cache_dir_bytes`, so that a later run
    finds them. cache_dtype: keep them in another dtype (default: the encoder's, which changes no
    mask). encode_batch, decode_batch: images and prompts at a time (default: by kind of device).
    Raises ModelError as `read_checkpoint` does, and for a device or dtype that there is not.
    """
    from segrl.segmenters.cache import MemoryCache
    from segrl.segmenters.checkpoint import read_checkpoint
    from segrl.segmenters.sam import SamSegmenter

    checkpoint = read_checkpoint(name_or_path, parse_device(device), parse_dtype(dtype))
    kept_dtype = None if cache_dtype is None else parse_dtype(cache_dtype)
    return SamSegmenter(
        checkpoint,
        multimask=multimask,
        mask_threshold=mask_threshold,
        encode_batch=encode_batch,
        decode_batch=decode_batch,
        cache=MemoryCache(cache_bytes, kept_dtype),
        disk=None if cache_dir is None else _disk(checkpoint, cache_dir, cache_dir_bytes, kept_dtype),
    )


def _disk(checkpoint: Checkpoint, directory: str, max_bytes: int, dtype: torch.dtype | None) -> DiskCache:
    from segrl.segmenters.cache import DiskCache, encoder_fingerprint

    return DiskCache(directory, encoder_fingerprint(checkpoint.model, checkpoint.processor), max_bytes, dtype)
