"""How often a property is tried: `--hypothesis-profile full` (`make test-long`) tries it on all its examples."""

from __future__ import annotations

from hypothesis import settings

PROFILES = {"segrl": 25, "full": 100}
"""Examples of a property that names no number."""


def register() -> None:
    """The same examples on every machine and no limit on one example's time: a busy core fails no test."""
    for name, count in PROFILES.items():
        settings.register_profile(name, deadline=None, derandomize=True, max_examples=count)
    settings.load_profile("segrl")


def tries(count: int) -> settings:
    """So many examples with all of them, and in the tests of every day the same share as elsewhere."""
    return settings(max_examples=max(10, count * settings().max_examples // PROFILES["full"]))


def is_full() -> bool:
    """Whether this run tries all examples."""
    return settings().max_examples >= PROFILES["full"]
