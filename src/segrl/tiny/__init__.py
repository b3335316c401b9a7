"""The embedded policies: one for photographs, one for drawn scenes; and the scenes. No GPU, no download."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from segrl.errors import ModelError

PHOTOS = Path(__file__).parent / "photos_weights"
"""Where the policy for photographs lies; `python proof/photographs.py ship` puts it there."""


def policy_dir() -> Path:
    """Directory of the shipped cold-started policy for drawn scenes, in the ordinary `from_pretrained` layout."""
    return Path(__file__).parent / "weights"


def photos_dir() -> Path:
    """Directory of the shipped policy for photographs. Raises ModelError where no weights ship."""
    if not (PHOTOS / "model.safetensors").is_file():
        raise ModelError("this build has no weights for tiny-photos: train them with make photographs DUTS=FOLDER")
    return PHOTOS


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


POLICIES = {
    "tiny-photos": photos_dir,
    "tiny-scenes": policy_dir,
    "tiny": policy_dir,
    "tiny-fresh": fresh_policy_dir,
}
"""Names that stand for a directory of this package, wherever a policy is named; tiny is tiny-scenes."""


def default_policy() -> str:
    """`tiny-photos` where its weights ship, else `tiny-scenes`."""
    return "tiny-photos" if (PHOTOS / "model.safetensors").is_file() else "tiny-scenes"


DEFAULT_POLICY = default_policy()
"""What pictures are asked with where nobody names a policy."""


def resolve_policy(name: str) -> str:
    """The directory that a name of `POLICIES` stands for; any other name as it is."""
    return str(POLICIES[name]()) if name in POLICIES else name
