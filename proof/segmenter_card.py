"""The card of the tiny segmenter's weights; its figures are measured here, on held-out pictures of DUTS-TR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from segmenter_samples import CANVAS, HELD_OUT, Pictures, draw_points, loosen

from segrl.segmenters.tiny import WEIGHTS, TinySegmenter, read_network
from segrl.types import ORIGINAL, MaskPrompt

MEASURED = 100
PASSES = (1, 2)


def card(
    best: dict[str, Any], log: Sequence[dict[str, Any]], pictures: Pictures, held_out: Sequence[int], remark: str
) -> str:
    """Markdown."""
    network = read_network(WEIGHTS)
    parameters = sum(one.numel() for one in network.parameters()) / 1e6
    figures = [
        figures_of(TinySegmenter(network, device=torch.device("cpu"), passes=n), pictures, held_out) for n in PASSES
    ]
    lines = "\n".join(f"| {name} | {' | '.join(f'{one[name]:.3f}' for one in figures)} |" for name in figures[0])
    hours = best["seconds"] / 3600
    return f"""# The tiny segmenter

A promptable segmenter for photographs: boxes and points in, a mask and the expected IoU out
(`segrl.segmenters.load("tiny")`). {parameters:.2f} million parameters in half precision,
{WEIGHTS.stat().st_size / 1e6:.1f} MB: a U-Net of residual blocks on a crop of 128 × 128 around the prompt, which is
drawn into four more channels (box, positive points, negative points, the mask so far).

Made from nothing by `python proof/segmenter.py train` and `ship`: {best["samples"]:,} samples in {hours:.1f} hours
on one core. {remark}

## Data and its terms

DUTS-TR: 10,553 photographs with the mask of what stands out, scaled to a longer side of {CANVAS} pixels (Wang, Lu,
Wang, Feng, Wang, Yin, Ruan: Learning to Detect Salient Objects with Image-level Supervision, CVPR 2017). The
photographs are ImageNet DET's and SUN's; copyright stays with their authors, and they are offered for research. No
picture or mask is in this package. Whoever needs weights without that history trains on
pictures of their own with the same command.

Every {HELD_OUT}th picture by name was held out; all choices were made on those. Prompts are simulated: boxes exact to
35% off on each side, up to three positive and three negative points, a point alone, objects cut off by the border, one
of several objects, another picture's object pasted over; and clicks where the last mask erred, with that mask as input.

## Figures

Mean IoU on {MEASURED} held-out pictures of DUTS-TR, by how often each prompt is answered (`passes`; the default is 2):

| asked with | {" | ".join(f"passes={n}" for n in PASSES)} |
| --- | {" | ".join("---" for _ in PASSES)} |
{lines}

On the test sets, beside GrabCut: `docs/segmenter.md`.

## Limits

It knows photographs with something that stands out. It was not taught parts of objects, text, drawings, medical or
aerial pictures, nor crowds; a single point is often not enough to say how much is meant. Thin parts are lost: the crop
is answered at 128 × 128, so a large object's outline is smooth.
"""


def figures_of(segmenter: TinySegmenter, pictures: Pictures, held_out: Sequence[int]) -> dict[str, float]:
    """Mean IoU by way of asking."""
    found: dict[str, list[float]] = {}
    for index in held_out[:MEASURED]:
        image, mask = pictures.pair(index)
        rng = np.random.default_rng(index)
        points, labels = draw_points(mask, 2, 2, rng)
        (point,), (one,) = draw_points(mask, 1, 0, rng)
        boxes = {by: loosen(mask, by / 100, rng) for by in (0, 10, 20, 30)}
        asked = {f"box {by}% off": MaskPrompt(box, frame=ORIGINAL) for by, box in boxes.items()}
        asked["box 20% off, 2 + 2 points"] = MaskPrompt(boxes[20], points, labels, ORIGINAL)
        asked["one point"] = MaskPrompt(None, (point,), (one,), ORIGINAL)
        [masks] = segmenter.decode(segmenter.encode([Image.fromarray(image)]), [list(asked.values())])
        truth = mask > 0
        for name, answered in zip(asked, masks.numpy(), strict=True):
            found.setdefault(name, []).append(float((answered & truth).sum() / (answered | truth).sum()))
    return {name: float(np.mean(values)) for name, values in found.items()}
