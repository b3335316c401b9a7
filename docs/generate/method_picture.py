"""Draws the picture of the README: image → reasoning → boxes and points → mask → reward, from one real answer.

    python docs/generate/method_picture.py

The shipped tiny policy answers about one synthetic scene, GrabCut makes the mask, and the reward is that of the
quickstart's recipe. It needs no GPU and no download, and writes images/method.svg.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch
from PIL import Image

import segrl
from segrl import overlay
from segrl.scoring import iou
from segrl.tiny.scenes import TinyScenes
from segrl.types import ORIGINAL, MaskPrompt

OUT = Path(__file__).parents[1] / "images" / "method.svg"
SEED, INDEX, KINDS = 9001, 6, ("colour_shape", "pair")
SIDE, GAP, TOP, SCALE = 190, 38, 40, 3
CAPTIONS = (
    "image and request",
    "the model reasons and points",
    "boxes and points",
    "mask (frozen segmenter)",
    "reward",
)


def main() -> None:
    """Writes the picture."""
    example = TinyScenes(INDEX + 1, SEED, kinds=KINDS)[INDEX]
    result = segrl.load("tiny").segment(example.image, example.query)
    quality = float(iou(torch.from_numpy(result.mask)[None], torch.from_numpy(example.truth))[0])
    big = example.image.resize((example.image.width * SCALE, example.image.height * SCALE), Image.Resampling.NEAREST)
    found = result.masks.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    prompts = [_enlarged(prompt) for prompt in result.prompts]
    parts = [
        _picture(0, big),
        _text(0, [f"“{example.query}”"], SIDE + 20),
        _text(1, _lines(result.text), 12, mono=True),
        _picture(2, overlay.draw(big, np.zeros_like(found), prompts)),
        _picture(3, overlay.draw(big, found)),
        _text(4, [f"IoU {quality:.2f}", "+ format"], 70, size=26),
        _text(4, ["GRPO makes answers", "with better masks", "more likely"], 140),
        *(_text(i, [caption], -14, bold=True) for i, caption in enumerate(CAPTIONS)),
        *(_arrow(i) for i in range(len(CAPTIONS) - 1)),
    ]
    width, height = len(CAPTIONS) * (SIDE + GAP) - GAP + 20, TOP + SIDE + 40
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = "<style>text{font-family:sans-serif;fill:#24292f} .mono{font-family:monospace}</style>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>'
    OUT.write_text(head + "".join(parts) + "</svg>\n", encoding="utf-8")
    print(f"{OUT.name}: {example.query!r}, {result.status.name}, IoU {quality:.3f}")


def _enlarged(prompt: MaskPrompt) -> MaskPrompt:
    """The prompt in pixels of the enlarged picture; a point goes to the middle of its pixel's square."""
    box = None if prompt.box_xyxy is None else tuple(SCALE * value for value in prompt.box_xyxy)
    points = tuple((SCALE * x + SCALE // 2, SCALE * y + SCALE // 2) for x, y in prompt.points_xy)
    return MaskPrompt(box, points, prompt.labels, ORIGINAL)


def _lines(text: str) -> list[str]:
    """The answer in lines of the column's width, each tag on a line of its own."""
    parts = re.sub(r"(</think>),? ", r"\1\n", re.sub(r", <", ",\n<", text)).replace("],[", "], [").split("\n")
    return [line for part in parts for line in textwrap.wrap(part, 28)]


def _left(column: int) -> int:
    return 10 + column * (SIDE + GAP)


def _picture(column: int, image: Image.Image) -> str:
    file = io.BytesIO()
    image.quantize(64).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    place = f'x="{_left(column)}" y="{TOP}" width="{SIDE}" height="{SIDE}"'
    return f'<image {place} href="data:image/png;base64,{data}"/>'


def _text(column: int, lines: list[str], y: int, *, size: int = 13, bold: bool = False, mono: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    family = ' class="mono"' if mono else ""
    size = 11 if mono else 12 if bold else size
    look = f'font-size="{size}"{weight}{family}'
    return "".join(
        f'<text x="{_left(column)}" y="{TOP + y + i * (size + 5)}" {look}>{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _arrow(column: int) -> str:
    x, y = _left(column) + SIDE + 8, TOP + SIDE // 2
    end = x + GAP - 16
    return (
        f'<path d="M{x} {y}H{end - 6}" stroke="#57606a" stroke-width="2"/>'
        f'<path d="M{end} {y}l-8 -5v10z" fill="#57606a"/>'
    )


if __name__ == "__main__":
    main()
