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
from segrl.inference import Decoding
from segrl.policies import Chat, Completion

TEXTS = {
    "box": "<think>there</think> <bbox>[250,250,750,750]</bbox>",
    "ghost": "<think>no</think> <bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>",
}


TURNS = {
    "box": "<think>too far right</think> <bbox>[200,250,700,750]</bbox>",
    "ghost": "<think>still none</think> <answer>done</answer>",
}
"""What is said after the first picture of a mask; then a point of label 0, and then that it is done."""
POINT = "<think>too much</think> <points>[[220,300]]</points>, <labels>[0]</labels>"
DONE = "<think>fits</think> <answer>done</answer>"


class Turning(ScriptedPolicy):
    """Fixed answers, corrected twice where turns are asked for."""

    def reply(self, chats, **options):
        """The n-th text of each chat."""
        return [[Completion(self._text(chat), n_tokens=3)] for chat in chats]

    def _text(self, chat: Chat) -> str:
        word = self._key(chat.image, chat.prompt)
        return [TEXTS[word], TURNS[word], POINT, DONE][min(len(chat.exchanges), 3)]


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

    def load(policy: str, segmenter: str = "box", **options: Any) -> pipeline.Pipeline:
        turning, decoding = Turning(TEXTS, key=key), Decoding.of(options.get("decoding") or {})
        cutting = segmenters.load(segmenter if decoding.turns > 1 else "box")
        return pipeline.Pipeline(turning, loading.make_text_to_masks(turning, cutting), decoding=decoding)

    monkeypatch.setattr(loading, "load", load)
    return seen


def segment(*arguments: object, stdin: bytes | None = None, name: str = "segment") -> Result:
    """The command's outcome. name: of another command."""
    return CliRunner().invoke(app, [name, *map(str, arguments)], input=stdin)
