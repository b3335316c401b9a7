"""What a server allows and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from segrl.errors import SegrlError


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may ask at once.

    max_bytes: of a request's body. max_pixels: of an image, checked before it is decoded.
    max_queries: of one request. max_query_chars: of one query. max_prompts: mask prompts of one
    request. seconds: from a request's first byte to its answer. places: requests open at once, for
    each kind of work; together with max_pixels it bounds the memory that images take (3 bytes a pixel).
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    max_queries: int = 16
    max_query_chars: int = 1000
    max_prompts: int = 64
    seconds: float = 120.0
    places: int = 64


@dataclass(frozen=True)
class ServerSettings:
    """Everything about a server but its pipeline.

    batch_size: queries answered together. token: what clients must present, or None.
    recent_bytes: memory for images that clients name again by `image_id`. label_studio_url: the one
    host that images are fetched from; label_studio_key: its access token. allow_origins: web pages
    of other origins that may ask. Raises SegrlError for values that mean nothing.
    """

    limits: Limits = field(default_factory=Limits)
    batch_size: int = 8
    token: str | None = None
    recent_bytes: int = 256 * 2**20
    label_studio_url: str | None = None
    label_studio_key: str | None = None
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise SegrlError("the token is empty: give one, or leave the option out to ask for none")
        if self.label_studio_url is not None:
            parts = urlsplit(self.label_studio_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise SegrlError(f"not the address of a Label Studio: {self.label_studio_url}; it begins with http://")
