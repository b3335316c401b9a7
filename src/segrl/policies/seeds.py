"""Seeds that name a request by its content: a draw depends on the request alone, not on what is generated beside it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def request_seed(seed: int, prompt: str, image: Image.Image) -> int:
    """63 bits that name a request by its content under a user's seed."""
    digest = hashlib.sha256(f"{seed} {image.size} {prompt}".encode(errors="surrogatepass"))
    digest.update(image.tobytes())
    return _bits(digest.digest())


def sample_seed(request: int, occurrence: int, sample: int) -> int:
    """63 bits that name one draw for a request; `occurrence` counts equal requests in one call."""
    return _bits(hashlib.sha256(f"{request} {occurrence} {sample}".encode()).digest())


def _bits(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> 1
