"""The reckoned cost of an answer: samples share the prompt and the weights."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.memory_estimate import answer_cost
from segrl.memory_estimate.dimensions import POLICIES

MODEL = POLICIES["Qwen/Qwen2.5-VL-7B-Instruct"]


def test_eight_samples_cost_eight_times_the_tokens_and_much_less_time():
    one, eight = (answer_cost(MODEL, (840, 840), samples=n) for n in (1, 8))
    assert (eight.read, eight.written) == (one.read, 8 * one.written)
    assert eight.reading == one.reading
    assert one.seconds < eight.seconds < 2 * one.seconds


def test_writing_is_bound_by_reading_the_weights():
    cost = answer_cost(MODEL, (840, 840), tokens=100)
    assert cost.writing == pytest.approx(100 * 2 * 7e9 / 2e12, rel=0.25)


def test_plan_prints_the_cost_of_votes():
    result = CliRunner().invoke(app, ["plan", "recipes/sam_r1.yaml", "--samples", "8", "--gpus", "8"])
    assert "8 samples" in result.output
