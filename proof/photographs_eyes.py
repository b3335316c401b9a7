"""Stage 0 of the policy for photographs: its convolutional eyes learn from DUTS-TR's masks where what stands out is.

    python proof/photographs_eyes.py --data DUTS --out runs/eyes
    segrl train recipes/photographs.yaml --out runs/photographs dataset.root=DUTS

Two heads learn with them and are dropped: one predicts the mask densely, the other the mask's box from the mean of all
features, so that both can be read from what the language model is given. What is left is a policy that has seen, and
says nothing yet. Started again, it goes on; `OUT/log.jsonl` has the learning curve. The weights that stay are an
average over the steps. Figures are of pictures of DUTS-TR that `segmenter_samples.split` holds out, and of as many that
it does not: how far they lie apart says how much is learned by heart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from photographs_policy import FEATURES, SIDE, STRIDE, build, save
from segmenter import average_weights, rate_at
from segmenter_samples import HELD_OUT, Pictures, random_colours, split, unpack
from torch import nn
from torch.nn import functional

from segrl.masks import mask_to_box
from segrl.segmenters.tiny.network import resize

DENSE = 8
"""Pixels that the dense head predicts for each feature, each way."""
CELLS = SIDE // STRIDE * DENSE
"""Pixels of the dense mask each way; a box's side lies on one of as many lines and one more."""
BOX_WEIGHT = 0.1
"""Of the box head's cross entropy beside the dense mask's loss."""
BLUR = 1.0
"""How far off a box's side may be for about half the likelihood, in pixels of the dense mask."""


class Eyes(nn.Module):
    """The vision tower and two heads: pixels `(n, 3, SIDE, SIDE)` to logits of the mask `(n, CELLS, CELLS)` and of the
    sides x1, y1, x2, y2 of its box `(n, 4, CELLS + 1)`."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Conv2d(FEATURES, DENSE * DENSE, 1)
        self.sides = nn.Linear(FEATURES, 4 * (CELLS + 1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        features = self.tower(pixels).last_hidden_state
        mask = functional.pixel_shuffle(self.head(features), DENSE)[:, 0].float()
        return mask, self.sides(features.mean((2, 3))).float().unflatten(1, (4, CELLS + 1))


def main() -> None:
    """The command line."""
    train(parser().parse_args())


def options(data: Path, out: Path, **given: Any) -> argparse.Namespace:
    """Those of a training, the command line's defaults where nothing is given."""
    chosen = parser().parse_args(["--data", str(data), "--out", str(out)])
    return argparse.Namespace(**{**vars(chosen), **given})


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--cache", type=Path, help="folder for the unpacked pictures (default: OUT/cache)")
    found.add_argument("--samples", type=int, default=150_000)
    found.add_argument("--batch", type=int, default=32)
    found.add_argument("--rate", type=float, default=1.5e-3)
    found.add_argument("--decay-from", type=float, default=0.3)
    found.add_argument("--seconds", type=float, default=240.0, help="between checkpoints")
    return found


def train(options: argparse.Namespace) -> None:
    """Until `samples` are seen; then the policy is in OUT/model."""
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = unpack(options.data, options.cache or options.out / "cache")
    training, held_out = split(pictures)
    policy = build()
    eyes = Eyes(policy.model.vision_tower).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(eyes, multi_avg_fn=average_weights, use_buffers=True)
    optimizer = torch.optim.AdamW(eyes.parameters(), options.rate, weight_decay=0.05)
    kept = {"eyes": eyes, "average": average, "optimizer": optimizer}
    step, steps, last, losses = _resume(options.out, kept), options.samples // options.batch, time.monotonic(), []
    while step < steps:
        rng = np.random.default_rng((1, step))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate_at(step / steps, options)
        chosen = [training[i] for i in rng.integers(0, len(training), options.batch)]
        loss = loss_of(eyes.train(), *batch_of(pictures, chosen, rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(eyes.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(eyes)
        losses.append(loss.item())
        step += 1
        if time.monotonic() - last > options.seconds or step == steps:
            _keep(options.out, kept, step)
            _log(options, step, losses, average.module, pictures, training, held_out)
            last, losses = time.monotonic(), []
    eyes.load_state_dict(average.module.state_dict())
    save(options.out / "model", policy)
    print(f"wrote {options.out / 'model'}")


def batch_of(
    pictures: Pictures, indices: Sequence[int], rng: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as the policy's processor gives them, squashed; and masks `(n, CELLS, CELLS)`. rng: augmented."""
    images, masks, colours = [], [], []
    for index in indices:
        image, mask = pictures.pair(index)
        if rng is not None:
            image, mask = _view(image, mask, rng)
        images.append(resize(image, (SIDE, SIDE)))
        masks.append(resize(mask.astype(np.float32), (CELLS, CELLS)))
        colours.append(np.eye(3, 4, dtype=np.float32) if rng is None else random_colours(rng))
    rgb = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    colour = torch.from_numpy(np.stack(colours))
    rgb = torch.einsum("nij,njhw->nihw", colour[:, :, :3], rgb) + colour[:, :, 3, None, None]
    pixels = (rgb.clamp(0, 1) * 2 - 1).contiguous(memory_format=torch.channels_last)
    return pixels, torch.from_numpy(np.stack(masks))


def _view(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A part of the picture that keeps most of the object, mirrored half the time."""
    h, w = mask.shape
    ch, cw = int(h * rng.uniform(0.65, 1)), int(w * rng.uniform(0.65, 1))
    y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
    if mask[y : y + ch, x : x + cw].sum() > 0.8 * mask.sum():
        image, mask = image[y : y + ch, x : x + cw], mask[y : y + ch, x : x + cw]
    return (image[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (image, mask)


def loss_of(eyes: Eyes, pixels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of the dense mask cross entropy plus one minus soft IoU, and a share of the box's cross entropy."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, sides = eyes(pixels)
    probability = logits.sigmoid()
    both = (probability * target).sum((1, 2))
    soft = both / (probability.sum((1, 2)) + target.sum((1, 2)) - both + 1)
    dense = functional.binary_cross_entropy_with_logits(logits, target) + (1 - soft).mean()
    return dense + BOX_WEIGHT * functional.cross_entropy(sides.flatten(0, 1), near_sides(target).flatten(0, 1))


def near_sides(target: torch.Tensor) -> torch.Tensor:
    """Of masks `(n, CELLS, CELLS)` how likely each line is a side of the box, `(n, 4, CELLS + 1)`; sums are 1."""
    boxes = [mask_to_box(one) or (0.0, 0.0, float(CELLS), float(CELLS)) for one in target.numpy() > 0.5]
    off = torch.arange(CELLS + 1) - torch.tensor(boxes)[:, :, None]
    return torch.softmax(-((off / BLUR) ** 2) / 2, dim=2)


@torch.no_grad()
def measure(eyes: Eyes, pictures: Pictures, indices: Sequence[int], count: int = 192) -> dict[str, float]:
    """Mean IoU of the dense masks, of their boxes with the truth's, and of the box head's boxes with the truth's."""
    eyes.eval()
    rows = []
    for start in range(0, min(count, len(indices)), 16):
        pixels, target = batch_of(pictures, indices[start : min(start + 16, count)], None)
        logits, sides = eyes(pixels)
        lines = (sides.softmax(2) * torch.arange(CELLS + 1)).sum(2).tolist()
        for answered, truth, line in zip(logits.numpy() > 0, target.numpy() > 0.5, lines, strict=True):
            box = mask_to_box(truth)
            iou = (answered & truth).sum() / max((answered | truth).sum(), 1)
            rows.append((iou, box_iou(mask_to_box(answered), box), box_iou(tuple(line), box)))
    means = np.mean(rows, axis=0).tolist()
    return {name: round(value, 4) for name, value in zip(("iou", "box_iou", "sides_iou"), means, strict=True)}


def box_iou(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> float:
    """Of two boxes; 0 where either is missing."""
    if a is None or b is None:
        return 0.0
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (sum(areas) - w * h)


def _log(
    options: argparse.Namespace,
    step: int,
    losses: Sequence[float],
    eyes: Eyes,
    pictures: Pictures,
    training: Sequence[int],
    held_out: Sequence[int],
) -> None:
    trained = {f"train_{name}": value for name, value in measure(eyes, pictures, training[::HELD_OUT]).items()}
    row = {"step": step, "samples": step * options.batch, "loss": round(float(np.mean(losses)), 4)}
    line = json.dumps(row | measure(eyes, pictures, held_out) | trained)
    with (options.out / "log.jsonl").open("a") as log:
        log.write(line + "\n")
    print(line, flush=True)


def _keep(out: Path, kept: Mapping[str, Any], step: int) -> None:
    part = out / "last.part"
    torch.save({name: one.state_dict() for name, one in kept.items()} | {"step": step}, part)
    part.replace(out / "last.pt")


def _resume(out: Path, kept: Mapping[str, Any]) -> int:
    if not (out / "last.pt").exists():
        return 0
    saved = torch.load(out / "last.pt", weights_only=True)
    for name, one in kept.items():
        one.load_state_dict(saved[name])
    return int(saved["step"])


if __name__ == "__main__":
    main()
