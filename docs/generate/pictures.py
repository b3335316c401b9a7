"""Draws the pictures of the tour: a synthetic scene, the gold mask prompts of an example, the masks made of them.

    python docs/generate/pictures.py

It needs no GPU and no download. The scene and its prompts depend on a seed; GrabCut makes the masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segrl import overlay, segmenters
from segrl.tiny.scenes import TinyScenes
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status

OUT = Path(__file__).parents[1] / "images"
SEED, INDEX, SCALE, GAP = 3, 0, 3, 12


def main() -> None:
    """Writes images/tour.png: the scene, its box and points, and the masks, side by side."""
    example = TinyScenes(INDEX + 1, SEED, kinds=("several",), gold="tight")[INDEX]
    prompts = example.meta["prompts"]
    answer = Answer(Status.OK, prompts)
    masks = segmenters.segment(segmenters.load("grabcut"), [example.image], [answer])[0].masks.numpy()
    big = example.image.resize((example.image.width * SCALE, example.image.height * SCALE), Image.Resampling.NEAREST)
    drawn = [_enlarged(prompt) for prompt in prompts]
    found = masks.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    nothing = np.zeros_like(found)
    panels = (big, overlay.draw(big, nothing, drawn), overlay.draw(big, found))
    OUT.mkdir(exist_ok=True)
    _beside(panels).quantize(128).save(OUT / "tour.png", optimize=True)
    print(f"{OUT / 'tour.png'}: {example.query!r}, {len(prompts)} objects")


def _enlarged(prompt: MaskPrompt) -> MaskPrompt:
    """The prompt in pixels of the enlarged picture; a point goes to the middle of its pixel's square."""
    box = None if prompt.box_xyxy is None else tuple(SCALE * value for value in prompt.box_xyxy)
    points = tuple((SCALE * x + SCALE // 2, SCALE * y + SCALE // 2) for x, y in prompt.points_xy)
    return MaskPrompt(box, points, prompt.labels, ORIGINAL)


def _beside(panels: tuple[Image.Image, ...]) -> Image.Image:
    width, height = panels[0].size
    sheet = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), (255, 255, 255))
    for i, panel in enumerate(panels):
        sheet.paste(panel, (i * (width + GAP), 0))
    return sheet


if __name__ == "__main__":
    main()
