"""What keeps the unit tier quick: no test imports what takes seconds to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

SLOW = frozenset({"transformers", "trl", "gradio"})
"""Seconds in each process of tests. The other tiers, collected first where all are run, import them anyway."""


@pytest.fixture(autouse=True, scope="module")
def _imports_nothing_slow() -> Iterator[None]:
    before = SLOW & sys.modules.keys()
    yield
    slow = (SLOW & sys.modules.keys()) - before
    assert not slow, f"a test imports {', '.join(slow)}: its place is tests/integration"
