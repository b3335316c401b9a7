"""Stage 0 of the policy for photographs: its convolutional eyes learn from DUTS-TR's masks where what stands out is.

    python proof/photographs_eyes.py --data DUTS --out runs/eyes
    segrl train recipes/photographs.yaml --out runs/photographs dataset.root=DUTS

The head that predicts the mask densely is dropped; what is left is a policy that has seen, and says nothing yet.
Started again, it goes on. Figures are of the pictures of DUTS-TR that `segmenter_samples.split` holds out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from photographs_policy import FEATURES, SIDE, STRIDE, build, save
from segmenter import rate_at
from segmenter_samples import Pictures, random_colours, split, unpack
from torch import nn
from torch.nn import functional

from segrl.masks import mask_to_box
from segrl.segmenters.tiny.network import resize

DENSE = 8
"""Pixels that the dense head predicts for each feature, each way."""


class Eyes(nn.Module):
    """The vision tower and a dense head: pixels `(n, 3, SIDE, SIDE)` to mask logits `(n, SIDE / 4, SIDE / 4)`."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Conv2d(FEATURES, DENSE * DENSE, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self.tower(pixels).last_hidden_state
        return functional.pixel_shuffle(self.head(features), DENSE)[:, 0].float()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder for the unpacked pictures (default: OUT/cache)")
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--decay-from", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=240.0, help="between checkpoints")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Until `samples` are seen; then the policy is in OUT/model."""
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = unpack(options.data, options.cache or options.out / "cache")
    training, held_out = split(pictures)
    policy = build()
    eyes = Eyes(policy.model.vision_tower)
    optimizer = torch.optim.AdamW(eyes.parameters(), options.rate, weight_decay=0.05)
    step, steps, last = _resume(options.out, eyes, optimizer), options.samples // options.batch, time.monotonic()
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
        step += 1
        if time.monotonic() - last > options.seconds or step == steps:
            _keep(options.out, eyes, optimizer, step)
            print(
                json.dumps({"step": step, "loss": round(loss.item(), 4), **measure(eyes, pictures, held_out)}),
                flush=True,
            )
            last = time.monotonic()
    save(options.out / "model", policy)
    print(f"wrote {options.out / 'model'}")


def batch_of(
    pictures: Pictures, indices: Sequence[int], rng: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as the policy's processor gives them, squashed; and masks `(n, SIDE / 4, SIDE / 4)`. rng: augmented."""
    images, masks, colours = [], [], []
    for index in indices:
        image, mask = pictures.pair(index)
        if rng is not None:
            image, mask = _view(image, mask, rng)
        images.append(resize(image, (SIDE, SIDE)))
        dense = SIDE // STRIDE * DENSE
        masks.append(resize(mask.astype(np.float32), (dense, dense)))
        colours.append(np.eye(3, 4, dtype=np.float32) if rng is None else random_colours(rng))
    # Contiguous, because FastViT's backward pass in channels_last ends in a segmentation fault on a CPU (torch 2.15).
    rgb = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().contiguous() / 255
    colour = torch.from_numpy(np.stack(colours))
    rgb = torch.einsum("nij,njhw->nihw", colour[:, :, :3], rgb) + colour[:, :, 3, None, None]
    return (rgb.clamp(0, 1) * 2 - 1).contiguous(), torch.from_numpy(np.stack(masks))


def _view(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A part of the picture that keeps most of the object, mirrored half the time."""
    h, w = mask.shape
    ch, cw = int(h * rng.uniform(0.65, 1)), int(w * rng.uniform(0.65, 1))
    y, x = rng.integers(0, h - ch + 1), rng.integers(0, w - cw + 1)
    if mask[y : y + ch, x : x + cw].sum() > 0.8 * mask.sum():
        image, mask = image[y : y + ch, x : x + cw], mask[y : y + ch, x : x + cw]
    return (image[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (image, mask)


def loss_of(eyes: Eyes, pixels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus one minus soft IoU."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = eyes(pixels)
    probability = logits.float().sigmoid()
    both = (probability * target).sum((1, 2))
    soft = both / (probability.sum((1, 2)) + target.sum((1, 2)) - both + 1)
    return functional.binary_cross_entropy_with_logits(logits.float(), target) + (1 - soft).mean()


@torch.no_grad()
def measure(eyes: Eyes, pictures: Pictures, held_out: Sequence[int], count: int = 192) -> dict[str, float]:
    """Mean IoU of the dense masks, and of their boxes with the truth's."""
    eyes.eval()
    found, boxes = [], []
    for start in range(0, min(count, len(held_out)), 16):
        pixels, target = batch_of(pictures, held_out[start : min(start + 16, count)], None)
        for logits, truth in zip(eyes(pixels).numpy() > 0, target.numpy() > 0.5, strict=True):
            found.append((logits & truth).sum() / max((logits | truth).sum(), 1))
            boxes.append(box_iou(mask_to_box(logits), mask_to_box(truth)))
    return {"iou": round(float(np.mean(found)), 4), "box_iou": round(float(np.mean(boxes)), 4)}


def box_iou(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> float:
    """Of two boxes; 0 where either is missing."""
    if a is None or b is None:
        return 0.0
    w, h = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (sum(areas) - w * h)


def _keep(out: Path, eyes: Eyes, optimizer: torch.optim.Optimizer, step: int) -> None:
    part = out / "last.part"
    torch.save({"eyes": eyes.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
    part.replace(out / "last.pt")


def _resume(out: Path, eyes: Eyes, optimizer: torch.optim.Optimizer) -> int:
    if not (out / "last.pt").exists():
        return 0
    saved = torch.load(out / "last.pt", weights_only=True)
    eyes.load_state_dict(saved["eyes"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


if __name__ == "__main__":
    main()
