"""The embedded default: synthetic scenes and a tiny policy with its weights. No GPU, no download."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path


def policy_dir() -> Path:
    """Directory of the shipped cold-started policy, in the ordinary `from_pretrained` layout."""
    return Path(__file__).parent / "weights"


def quickstart_recipe() -> Path:
    """The recipe of `segrl quickstart`; recipes/tiny_quickstart.yaml is the same file."""
    return Path(__file__).parent / "quickstart.yaml"


def fresh_policy_dir() -> Path:
    """Directory of the tiny policy before any training; written to the user's cache when first asked for.

    Its weights depend on the sources of this package alone, and so does its name.
    """
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in ("model.py", "shapes.py"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segrl"
    place = cache / f"tiny-fresh-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not place.is_dir():
        from segrl.tiny.model import save

        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache)) / place.name
        save(made)
        with contextlib.suppress(OSError):  # another process was first, with the same weights
            made.rename(place)
        shutil.rmtree(made.parent)
    return place


POLICIES = {"tiny": policy_dir, "tiny-fresh": fresh_policy_dir}
"""Names that stand for a directory of this package, wherever a policy is named."""


def resolve_policy(name: str) -> str:
    """The directory that a name of `POLICIES` stands for; any other name as it is."""
    return str(POLICIES[name]()) if name in POLICIES else name
