"""A small run whose answers are made from the ground truth and a seed, so that its figures are the same anywhere.

No model is asked: the texts of each arm are the ideal answers, made worse by as much as the arm says, and replayed
through the real answer format, GrabCut and scoring.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from segrl import answers, datasets
from segrl.evaluation import EvalSettings, Share, run
from segrl.types import Example, MaskPrompt

KINDS = ["colour_shape", "pair", "several", "none", "size", "position", "relation"]
DATA = {"n": 42, "seed": 9002, "kinds": KINDS, "gold": "tight"}

ARMS = {"before": (0.45, 0.25, 0.15), "after": (0.15, 0.1, 0.0), "sft": (0.4, 0.2, 0.1), "shuffled": (0.5, 0.3, 0.2)}
"""Arm → how far a box reaches beyond its object (in its sides), share of answers about another scene, share broken."""


def write_texts(path: Path, arm: str) -> Path:
    """The texts of an arm, a line each, as the policy `scripted` replays them."""
    examples = list(datasets.load("tiny", **DATA))
    draw = random.Random(arm)
    rows = [{"id": example.id, "text": _text(examples, i, arm, draw)} for i, example in enumerate(examples)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate_arm(root: Path, arm: str, out: Path) -> None:
    """An arm's evaluation, a finished directory."""
    settings = EvalSettings(
        policy="scripted",
        dataset="tiny",
        segmenter="grabcut",
        policy_options={"frame": "original"},
        dataset_options=DATA,
        texts=str(write_texts(root / f"{arm}.texts", arm)),
    )
    assert run(settings, out, share=Share())


def _text(examples: list[Example], place: int, arm: str, draw: random.Random) -> str:
    reach, elsewhere, broken = ARMS[arm]
    other = examples[(place + 1) % len(examples)] if draw.random() < elsewhere else examples[place]
    prompts = [_loose(prompt, reach * draw.random()) for prompt in other.meta["prompts"]]
    text = answers.get("seg-r1").render(prompts, other.meta["reasoning"])
    return text[: len(text) // 2] if draw.random() < broken else text


def _loose(prompt: MaskPrompt, share: float) -> MaskPrompt:
    """The prompt with a box that is too large, in whole pixels of the scene of 112."""
    x1, y1, x2, y2 = prompt.box_xyxy
    dx, dy = round(share * (x2 - x1)), round(share * (y2 - y1))
    return replace(prompt, box_xyxy=(max(x1 - dx, 0), max(y1 - dy, 0), min(x2 + dx, 112), min(y2 + dy, 112)))
