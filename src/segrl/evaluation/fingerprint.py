"""Hashes by which a result knows what it was made from: examples, weights, versions."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path

from segrl.devices import installed_version
from segrl.masks import to_rle
from segrl.types import Example

_VERSIONS = (
    "segrl",
    "torch",
    "torchvision",
    "transformers",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "pysodmetrics",
)

_BLOCK, _BLOCKS = 65536, 64
"""A file of weights is known by its size and this many blocks, spread evenly over it."""


def versions() -> dict[str, str | None]:
    """The versions of Python and of every package that has a part in the result."""
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _VERSIONS}}


def examples_hash(examples: Sequence[Example], count: int = 8) -> str:
    """A hash of what examples spread over the data set hold: id, image, query and truth."""
    from segrl.datasets.rows import spread

    digest = hashlib.sha256()
    for example in (examples[place] for place in spread(len(examples), count)):
        digest.update(
            example_key(example.id, example.image_id, example.query, to_rle(example.truth)["counts"]).encode()
        )
    return digest.hexdigest()[:16]


def example_key(id: str, image_id: str, query: str, truth_counts: str) -> str:
    """What makes two examples the same: id, pixels, query and truth. 32 hexadecimal digits."""
    return hashlib.sha256("\0".join((id, image_id, query, truth_counts)).encode()).hexdigest()[:32]


def weights_fingerprint(name: str) -> str | None:
    """16 hexadecimal digits for the files of a local model; None for what is no directory.

    Settings and tokenizer are read whole, weights by their size and blocks spread over them: a merged
    adapter changes blocks all over the file.
    """
    from segrl.tiny import resolve_policy

    folder = Path(resolve_policy(name))
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".jinja", ".txt")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for i in range(_BLOCKS if size > _BLOCK * _BLOCKS else 1):
                file.seek(i * (size - _BLOCK) // (_BLOCKS - 1) if size > _BLOCK * _BLOCKS else 0)
                digest.update(file.read(_BLOCK if size > _BLOCK * _BLOCKS else -1))
    return digest.hexdigest()[:16]
