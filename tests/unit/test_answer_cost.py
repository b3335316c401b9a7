"""The reckoned cost of an answer: samples share the prompt and the weights."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from segrl.cli.app import app
from segrl.memory_estimate import answer_cost
from segrl.memory_estimate.dimensions import H100, POLICIES

MODEL = POLICIES["Qwen/Qwen2.5-VL-7B-Instruct"]


def test_eight_samples_cost_eight_times_the_tokens_and_much_less_time():
    one, eight = (answer_cost(MODEL, (840, 840), samples=n) for n in (1, 8))
    assert (eight.read, eight.written) == (one.read, 8 * one.written)
    assert eight.reading == one.reading
    assert one.seconds < eight.seconds < 2 * one.seconds


def test_writing_is_bound_by_reading_the_weights():
    cost = answer_cost(MODEL, (840, 840), tokens=100)
    weights_read = 100 * 2 * (MODEL.parameters - MODEL.vision_parameters) / H100.bandwidth
    assert weights_read < cost.writing < 1.02 * weights_read


def test_plan_prints_the_cost_of_votes():
    result = CliRunner().invoke(app, ["plan", "recipes/sam_r1.yaml", "--samples", "8", "--gpus", "8"])
    lines = dict(
        re.findall(r"^ *(\d+) (?:answer|samples) +[\d.]+ s +\d+ tokens read, (\d+) written", result.output, re.M)
    )
    assert lines == {"1": "250", "8": "2000"}, result.output
