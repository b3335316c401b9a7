"""A small data set on disk with a script of answers of every kind, for the tests of the evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segrl.evaluation import Decoding, EvalSettings
from segrl.masks import box_to_mask, to_rle

BOX = (40.0, 10.0, 80.0, 30.0)
"""The object in every image of 100×50 that has one."""

TEXTS = {
    "right": "<think>one</think> <bbox>[400,200,800,600]</bbox>, <points>[[600,400]]</points>, <labels>[1]</labels>",
    "wide": "<bbox>[300,100,900,700]</bbox>",
    "elsewhere": "<bbox>[0,0,200,100]</bbox>",
    "nothing": "<bbox>[]</bbox> <points>[]</points> <labels>[]</labels>",
    "broken": "<bbox>[400,200,</bbox>",
    "none": "I do not know.",
}
WRITTEN = tuple(TEXTS)


def write_examples(
    root: Path, n: int, *, votes: Sequence[Sequence[str]] | None = None, samples: int = 1, query: str = "the box"
) -> EvalSettings:
    """`n` examples under `root` (two to an image, every fifth about nothing) and the settings that score a script."""
    rng = np.random.default_rng(0)
    rows, script = [], []
    for i in range(n):
        name = f"{i // 2}.png"
        if i % 2 == 0:
            Image.fromarray(rng.integers(0, 255, (50, 100, 3), dtype=np.uint8)).save(root / name)
        mask = None if i % 5 == 4 else to_rle(box_to_mask(BOX, (50, 100)))
        rows.append({"id": f"e{i}", "image": name, "query": query + " here" * (i % 4 * 2), "mask": mask})
        own = {"text": TEXTS[WRITTEN[i % len(WRITTEN)]]} if votes is None else {"texts": list(votes[i])}
        script.append({"id": f"e{i}", **own})
    for name, lines in (("data.jsonl", rows), ("script.jsonl", script)):
        (root / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return EvalSettings(
        policy="scripted",
        dataset="jsonl",
        segmenter="box",
        dataset_options={"root": str(root)},
        texts=str(root / "script.jsonl"),
        decoding=Decoding(samples=samples),
    )


def command_words(settings: EvalSettings, out: Path) -> list[str]:
    """What `segrl` is told to evaluate what `write_examples` wrote."""
    data = ["eval", "--dataset", "jsonl", "--root", settings.dataset_options["root"], "--segmenter", "box"]
    return [*data, "--policy", "scripted", "--texts", str(settings.texts), "--out", str(out)]
