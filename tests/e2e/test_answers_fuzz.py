"""A million texts through both readers without an exception; the short form is in tests/unit/test_answers_lenient.py."""

from __future__ import annotations

import random

import pytest
from test_answers import READ
from test_answers_lenient import KEYS, ONE_BOX, SEVERAL, random_text

from segrl import answers
from segrl.types import Answer

COUNT = 1_000_000


@pytest.mark.long
def test_a_million_texts_through_both_readers() -> None:
    rng = random.Random(2)
    pieces = [*KEYS, *SEVERAL, *ONE_BOX, *'[]{}(),:"<>/ \n'] + [text for _, text, _ in READ]
    names = answers.names()
    for _ in range(COUNT):
        text, name, truncated = random_text(rng, pieces), rng.choice(names), rng.random() < 0.3
        strict = answers.parse(text, name, truncated=truncated)
        lenient = answers.parse(text, name, truncated=truncated, reading="lenient")
        assert isinstance(strict, Answer)
        assert strict.status.is_failure or not lenient.status.is_failure
