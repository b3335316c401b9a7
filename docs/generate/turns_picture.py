"""Draws the pictures of docs/turns.md: one transcript of the tiny world, turn by turn.

    python docs/generate/turns_picture.py

It needs no GPU and no download: the transcript is made from the scene's masks (`segrl.datasets.turns`), GrabCut makes
the masks of its turns.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from segrl import datasets, overlay
from segrl.datasets.turns import Said
from segrl.turns import picture
from segrl.types import MaskPrompt

OUT = Path(__file__).parents[1] / "images"
SCALE, GAP = 3, 12
OPTIONS = {"seed": 3, "first": 0.0, "right": 0.0, "longest": 3, "good": 0.9, "continues": False}


def main() -> None:
    """Writes images/turns.png: the answers above, what the policy is shown after each below."""
    examples = datasets.load("tiny", n=200, seed=5, kinds=["colour_shape"], turns=OPTIONS)
    example = next(
        one for one in examples if len(one.meta["turns"]) == 3 and one.meta["turns"][-1].move.value == "done"
    )
    said = [one for one in example.meta["turns"] if one.stands is not None]
    answers = [overlay.draw(_big(example.image), _nothing(example.image), _prompts(one)) for one in said]
    shown = [
        _big(picture(example.image, one.stands.union.numpy(), "outline")) for one in said if one.stands is not None
    ]
    OUT.mkdir(exist_ok=True)
    _sheet([answers, shown]).quantize(128).save(OUT / "turns.png", optimize=True)
    ious = [float(np.mean(_iou(one, example.truth))) for one in said]
    print(f"{OUT / 'turns.png'}: {example.query!r}, IoU {', '.join(f'{iou:.2f}' for iou in ious)}")


def _iou(said: Said, truth: np.ndarray) -> float:
    assert said.stands is not None
    mask = said.stands.union.numpy()
    return float((mask & truth).sum() / (mask | truth).sum())


def _big(image: Image.Image) -> Image.Image:
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)


def _nothing(image: Image.Image) -> np.ndarray:
    return np.zeros((0, image.height * SCALE, image.width * SCALE), dtype=bool)


def _prompts(said: Said) -> list[MaskPrompt]:
    """What a turn wrote, in pixels of the enlarged picture."""
    found = []
    for prompt in said.prompts:
        box = None if prompt.box_xyxy is None else tuple(SCALE * value for value in prompt.box_xyxy)
        points = tuple((SCALE * x + SCALE // 2, SCALE * y + SCALE // 2) for x, y in prompt.points_xy)
        found.append(replace(prompt, box_xyxy=box, points_xy=points, prior_logits=None))
    return found


def _sheet(rows: list[list[Image.Image]]) -> Image.Image:
    width, height = rows[0][0].size
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            sheet.paste(panel, (x * (width + GAP), y * (height + GAP)))
    return sheet


if __name__ == "__main__":
    main()
