"""Runs of `segrl segment` with a policy of fixed answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image
from scripted import ScriptedPolicy
from typer.testing import CliRunner

from segrl import loading, pipeline, segmenters
from segrl.cli.app import app

TEXTS = {
    "box": "<think>there</think> <bbox>[250,250,750,750]</bbox>",
    "ghost": "<think>no</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>",
}


def save(path: Path, colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (40, 20)) -> Path:
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def fixed_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes `box` and `ghost` queries that are answered at once; the list gets what is asked."""
    seen: list[str] = []

    def key(image: Image.Image, prompt: str) -> str:
        seen.append(next(word for word in TEXTS if word in prompt))
        return seen[-1]

    def load(policy: str, **options: Any) -> pipeline.Pipeline:
        scripted = ScriptedPolicy(TEXTS, key=key)
        return pipeline.Pipeline(scripted, loading.make_text_to_masks(scripted, segmenters.load("box")))

    monkeypatch.setattr(loading, "load", load)
    return seen


def segment(*arguments: object, stdin: bytes | None = None) -> Result:
    """The command's outcome."""
    return CliRunner().invoke(app, ["segment", *map(str, arguments)], input=stdin)
