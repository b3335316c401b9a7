"""Segmenters by name."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.devices import parse_device, parse_dtype
from segrl.errors import ModelError
from segrl.segmenters.protocol import Segmenter
from segrl.text import check_options

if TYPE_CHECKING:
    import torch

    from segrl.segmenters.cache import DiskCache
    from segrl.segmenters.concept import ConceptSegmenter
    from segrl.segmenters.sam import SamSegmenter
    from segrl.segmenters.tiny import TinySegmenter

CONCEPT = "concept:"
"""Before the name of a checkpoint that can be asked in two ways: with words, please."""
WORDS_ONLY = ("sam3", "sam3_lite_text")
"""`model_type` of checkpoints that can be asked with words alone."""
CACHE_BYTES = 2 * 2**30
CACHE_DIR_BYTES = 50 * 2**30


def load(name_or_path: str, **options: Any) -> Segmenter:
    """The segmenter called `name_or_path`.

    "grabcut": GrabCut, needs no weights (options: `max_side`, `threads`, see `GrabCut`).
    "tiny": the small network that ships with segrl (options: `device`, `passes`, `weights`, see `load_tiny`).
    "box": the fake that fills boxes. "shapes": plain coloured shapes by words, without weights (`ShapeSegmenter`).
    `concept:NAME`: a SAM 3 that is asked with words, on the hub or in a directory (options: see `load_concept`); a
    directory whose model takes nothing else needs no prefix. Everything else is a model of the SAM family that takes
    boxes and points (options: see `load_sam`). One process loads each once.
    Raises ModelError for a name or an option that there is not.
    """
    from segrl.segmenters.grabcut import BoxSegmenter, GrabCut
    from segrl.segmenters.shapes import ShapeSegmenter

    builders: dict[str, Any] = {"grabcut": GrabCut, "tiny": load_tiny, "box": BoxSegmenter, "shapes": ShapeSegmenter}
    builder = builders.get(name_or_path)
    if builder is not None:
        check_options(f"the segmenter {name_or_path}", builder, options)
        try:
            return builder(**options)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the segmenter {name_or_path}: {error}") from error
    if takes_words(name_or_path):
        check_options(f"the segmenter {name_or_path}", load_concept, options)
        return load_concept(checkpoint_of(name_or_path), **options)
    check_options(f"the segmenter {name_or_path}", load_sam, options)
    return load_sam(name_or_path, **options)


def checkpoint_of(name: str) -> str:
    """The checkpoint that a segmenter's name means: the name without `concept:`."""
    return name.removeprefix(CONCEPT)


def takes_words(name: str) -> bool:
    """Whether the segmenter of that name takes words; nothing is loaded."""
    return name == "shapes" or name.startswith(CONCEPT) or _kind_here(name) in WORDS_ONLY


def _kind_here(name: str) -> str:
    """The `model_type` of a directory's configuration; "" for what is none."""
    path = Path(name) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # whoever reads the checkpoint says what is wrong with it


@lru_cache(maxsize=1)
def load_concept(
    name_or_path: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    score_threshold: float = 0.3,
    mask_threshold: float = 0.5,
    cache_bytes: int = CACHE_BYTES,
    cache_dtype: str | None = None,
    cache_dir: str | None = None,
    cache_dir_bytes: int = CACHE_DIR_BYTES,
    encode_batch: int | None = None,
    decode_batch: int | None = None,
) -> ConceptSegmenter:
    """A SAM 3 that is asked with words, or SAM 3 with the small text encoder (sam3_lite_text); the same object again.

    score_threshold, mask_threshold, decode_batch: see `ConceptSegmenter`. The others as in `load_sam`.
    Raises ModelError as that does, and for a model that takes no words.
    """
    import transformers

    from segrl.segmenters.cache import MemoryCache
    from segrl.segmenters.checkpoint import model_type, read_model, read_processor
    from segrl.segmenters.concept import CONCEPT_MODELS, ConceptSegmenter

    if not 0 <= score_threshold <= 1 or not 0 <= mask_threshold <= 1:
        raise ModelError(
            f"the segmenter {CONCEPT}{name_or_path}: score_threshold and mask_threshold lie within 0 and 1"
        )
    kind = model_type(name_or_path)
    if kind not in CONCEPT_MODELS:
        known = ", ".join(CONCEPT_MODELS)
        raise ModelError(f"{name_or_path} is a {kind}, which takes no words; these do: {known}")
    reader = getattr(transformers, CONCEPT_MODELS[kind])
    model = read_model(reader, name_or_path, parse_device(device), parse_dtype(dtype))
    processor, kept_dtype = read_processor("Sam3Processor", name_or_path), _kept_dtype(cache_dtype)
    return ConceptSegmenter(
        model,
        processor,
        score_threshold=score_threshold,
        mask_threshold=mask_threshold,
        encode_batch=encode_batch,
        decode_batch=decode_batch,
        cache=MemoryCache(cache_bytes, kept_dtype),
        disk=_disk(model, processor, cache_dir, cache_dir_bytes, kept_dtype),
    )


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
    kept_dtype = _kept_dtype(cache_dtype)
    return SamSegmenter(
        checkpoint,
        multimask=multimask,
        mask_threshold=mask_threshold,
        encode_batch=encode_batch,
        decode_batch=decode_batch,
        cache=MemoryCache(cache_bytes, kept_dtype),
        disk=_disk(checkpoint.model, checkpoint.processor, cache_dir, cache_dir_bytes, kept_dtype),
    )


def _kept_dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else parse_dtype(name)


def _disk(
    model: Any, processor: Any, directory: str | None, max_bytes: int, dtype: torch.dtype | None
) -> DiskCache | None:
    from segrl.segmenters.cache import DiskCache, encoder_fingerprint

    return None if directory is None else DiskCache(directory, encoder_fingerprint(model, processor), max_bytes, dtype)
