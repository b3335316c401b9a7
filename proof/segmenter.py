"""Trains the tiny segmenter on DUTS-TR and puts its weights into the package.

    python proof/segmenter.py train --data DUTS --out runs/segmenter     (hours on one core; started again, it goes on)
    python proof/segmenter.py ship runs/segmenter --data DUTS            (the best checkpoint, in half precision)

Every choice is made on pictures of DUTS-TR that are held out; `proof/segmenter_page.py` measures on the test sets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.optimize
import torch
from safetensors.torch import save_file
from segmenter_samples import Pictures, Sample, fresh, loosen, next_round, onto_picture, split, unpack
from torch.nn import functional

from segrl.files import write_atomically
from segrl.segmenters.tiny import FIRST_SIDE, SIDE, WEIGHTS
from segrl.segmenters.tiny.network import DEVIATION, MEAN, REACH, Crop, CropNetwork, fuse

PLAIN = np.eye(3, 4, dtype=np.float32)
"""The colours as they are; see `Sample.colour`."""
CHOOSING = 240
"""Held-out pictures that the best checkpoint is chosen on."""


@dataclass
class Options:
    """One training.

    samples: rounds of correction count, too. decay_from, small_until: shares of the training, after which the learning
    rate falls and the crops grow from `FIRST_SIDE` to the network's own side. seconds: between checkpoints.
    """

    data: Path
    out: Path
    cache: Path
    samples: int = 400_000
    batch: int = 32
    rate: float = 1.5e-3
    decay_from: float = 0.5
    seconds: float = 240.0
    seed: int = 0
    small_until: float = 0.55


@dataclass
class State:
    """Everything that a checkpoint holds."""

    network: CropNetwork
    average: torch.optim.swa_utils.AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = 0.0
    seconds: float = 0.0
    batch: list[Sample | None] = field(default_factory=list)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train_parser = commands.add_parser("train")
    train_parser.add_argument("--data", type=Path, required=True)
    train_parser.add_argument("--out", type=Path, default=Path("runs/segmenter"))
    train_parser.add_argument("--cache", type=Path, help="folder for the unpacked pictures (2 GB; default: OUT/cache)")
    for name in ("samples", "batch", "rate", "decay_from", "small_until", "seconds", "seed"):
        default = getattr(Options, name)
        train_parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    train_parser.set_defaults(
        run=lambda chosen: train(Options(**{**vars(chosen), "cache": chosen.cache or chosen.out / "cache"}))
    )
    ship_parser = commands.add_parser("ship")
    ship_parser.add_argument("out", type=Path)
    ship_parser.add_argument("--data", type=Path, required=True)
    ship_parser.add_argument("--cache", type=Path)
    ship_parser.add_argument("--remark", default="", help="what a reader of the card should know besides")
    ship_parser.set_defaults(run=lambda chosen: ship(chosen.out, chosen.data, chosen.cache, chosen.remark))
    arguments = parser.parse_args()
    run = arguments.run
    del arguments.run
    run(arguments)


def train(options: Options) -> None:
    """Until `samples` are seen."""
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = unpack(options.data, options.cache)
    training, held_out = split(pictures)
    state = resume(options)
    steps = options.samples // options.batch
    started, seen, losses = time.monotonic(), 0.0, []
    while state.step < steps:
        begun = time.monotonic()
        rng = np.random.default_rng((options.seed, state.step))
        samples = [sample or fresh(pictures, training, rng) for sample in state.batch or [None] * options.batch]
        losses.append(one_step(state, samples, options, state.step / steps, rng))
        state.step += 1
        state.seconds += time.monotonic() - begun
        if time.monotonic() - started - seen > options.seconds or state.step == steps:
            seen = time.monotonic() - started
            keep(state, options, np.mean(losses, axis=0), validate(state, pictures, held_out))
            losses = []


def rate_at(progress: float, options: Options | argparse.Namespace) -> float:
    """The learning rate's factor: a short rise, constant, then half a cosine to nothing."""
    if progress < options.decay_from:
        return min(1.0, progress / 0.01 + 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - options.decay_from) / (1 - options.decay_from))


def one_step(
    state: State, samples: Sequence[Sample], options: Options, progress: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """One update; each sample's next round, or None, is left in `state.batch`. Gives mask loss, score loss, IoU."""
    for group in state.optimizer.param_groups:
        group["lr"] = options.rate * rate_at(progress, options)
    crops = [sample.crop() for sample in samples]
    inputs, target, outside = batch_of(samples, crops, FIRST_SIDE if progress < options.small_until else SIDE)
    with torch.autocast("cpu", torch.bfloat16):
        logits, score = state.network(inputs)
    logits, score = logits.float(), score.float()
    mask_loss, overlap = losses_of(logits, target, outside)
    score_loss = functional.mse_loss(score.sigmoid(), overlap)
    state.optimizer.zero_grad()
    (mask_loss + score_loss).backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimizer.step()
    state.average.update_parameters(state.network)
    answers = logits.detach().numpy()
    state.batch = [next_round(s, a, c, rng) for s, a, c in zip(samples, answers, crops, strict=True)]
    return mask_loss.item(), score_loss.item(), overlap.mean().item()


def batch_of(
    samples: Sequence[Sample], crops: Sequence[Crop], side: int = SIDE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Network inputs `(n, 7, side, side)`, targets `(n, side, side)`, areas outside the crops `(n,)`."""
    parts = [sample.inputs(side, crop) for sample, crop in zip(samples, crops, strict=True)]
    rgb = torch.from_numpy(np.stack([part[0] for part in parts])).permute(0, 3, 1, 2).float() / 255
    colour = torch.from_numpy(np.stack([sample.colour for sample in samples]))
    rgb = torch.einsum("nij,njhw->nihw", colour[:, :, :3], rgb) + colour[:, :, 3, None, None]
    rgb = (rgb.clamp(0, 1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    maps = torch.from_numpy(np.stack([part[1] for part in parts]))
    target = torch.from_numpy(np.stack([part[2] for part in parts]))
    outside = torch.tensor([part[3] for part in parts], dtype=torch.float32)
    inputs = torch.cat([rgb, maps], dim=1).contiguous(memory_format=torch.channels_last)
    return inputs, target, outside


def losses_of(logits: torch.Tensor, target: torch.Tensor, outside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy plus one minus soft IoU, and the IoU `(n,)` of the masks with what lies outside the crop missed."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    both = (probability * target).sum((1, 2))
    soft = both / (probability.sum((1, 2)) + target.sum((1, 2)) - both + 1)
    with torch.no_grad():
        answered, truth = logits > 0, target > 0.5
        union = (answered | truth).sum((1, 2)) + outside
        overlap = (answered & truth).sum((1, 2)) / union.clamp(min=1)
    return entropy + (1 - soft).mean(), overlap


@torch.no_grad()
def answer(network: Any, samples: Sequence[Sample], side: int = SIDE) -> tuple[list[np.ndarray], np.ndarray]:
    """Logits over each picture `(h, w)`, and expected IoUs."""
    found, scores = [], []
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        crops = [sample.crop() for sample in part]
        logits, score = network(batch_of(part, crops, side)[0])
        scores.append(score.sigmoid().numpy())
        found += [
            onto_picture(one, crop, sample.mask.shape)
            for one, crop, sample in zip(logits.numpy(), crops, part, strict=True)
        ]
    return found, np.concatenate(scores)


def validate(state: State, pictures: Pictures, held_out: Sequence[int]) -> dict[str, float]:
    """Mean IoU of the averaged weights on held-out pictures: exact box, box 30% off, one point."""
    network = state.average.module.eval()
    columns = {name: [] for name in ("exact", "off30", "point")}
    for index in held_out[:CHOOSING]:
        image, mask = pictures.pair(index)
        rng = np.random.default_rng(index)
        ys, xs = np.nonzero(mask)
        at = rng.integers(len(ys))
        point = (float(xs[at]), float(ys[at]))
        columns["exact"].append(Sample(image, mask, loosen(mask, 0, rng), (), (), PLAIN, REACH))
        columns["off30"].append(Sample(image, mask, loosen(mask, 0.3, rng), (), (), PLAIN, REACH))
        columns["point"].append(Sample(image, mask, None, (point,), (1,), PLAIN, REACH))
    figures = {}
    for name, samples in columns.items():
        logits, _ = answer(network, samples)
        figures[name] = float(np.mean([iou(one > 0, s.mask > 0) for one, s in zip(logits, samples, strict=True)]))
    return figures


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two bool masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def build(options: Options) -> State:
    """A new training."""
    torch.manual_seed(options.seed)
    network = CropNetwork().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average_weights, use_buffers=True)
    return State(network, average, torch.optim.AdamW(network.parameters(), options.rate, weight_decay=0.03))


def average_weights(averages: Any, current: Any, count: torch.Tensor) -> None:
    """An exponential average whose memory grows with the steps so far, so that the first weights are soon forgotten."""
    weight = max(1 - 0.998, 9 / (10 + int(count)))
    for average, value in zip(averages, current, strict=True):
        if average.is_floating_point():
            average.lerp_(value, weight)
        else:
            average.copy_(value)


def resume(options: Options) -> State:
    """The training as its last checkpoint left it, or a new one."""
    state, path = build(options), options.out / "last.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step, state.best, state.seconds = saved["step"], saved["best"], saved["seconds"]
        print(f"goes on from step {state.step}", flush=True)
    return state


def keep(state: State, options: Options, losses: np.ndarray, figures: dict[str, float]) -> None:
    """A checkpoint, a line of the log, and the averaged weights where they are the best so far."""
    mean = sum(figures.values()) / len(figures)
    row = {"step": state.step, "samples": state.step * options.batch, "seconds": round(state.seconds), "mean": mean}
    row |= figures | dict(zip(("mask_loss", "score_loss", "train_iou"), losses.tolist(), strict=True))
    with (options.out / "log.jsonl").open("a") as log:
        log.write(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
    print(row, flush=True)
    is_best = mean > state.best
    state.best = max(mean, state.best)
    saved = {"network": state.network.state_dict(), "average": state.average.state_dict()}
    saved |= {"optimizer": state.optimizer.state_dict(), "step": state.step}
    saved |= {"best": state.best, "seconds": state.seconds}
    _save(saved, options.out / "last.pt")
    if is_best:
        _save({"weights": state.average.module.state_dict(), "row": row}, options.out / "best.pt")


def ship(out: Path, data: Path, cache: Path | None, remark: str) -> None:
    """The best averaged weights of `out` into the package, in half precision, with their card."""
    from segmenter_card import card

    saved = torch.load(out / "best.pt", weights_only=True)
    network = CropNetwork()
    network.load_state_dict(saved["weights"])
    pictures = unpack(data, cache or out / "cache")
    calibrate(network.eval(), pictures, split(pictures)[1])
    halves = {name: one.half().contiguous() for name, one in fuse(network).state_dict().items()}
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(halves, WEIGHTS)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    text = card(saved["row"], rows, pictures, split(pictures)[1], remark)
    write_atomically(WEIGHTS.with_name("README.md"), text)
    print(f"wrote {WEIGHTS.parent}")


@torch.no_grad()
def calibrate(network: CropNetwork, pictures: Pictures, held_out: Sequence[int]) -> None:
    """Scales and shifts the score's logit so that its mean square error on held-out pictures is the least."""
    rng = np.random.default_rng(0)
    samples = [fresh(pictures, [index], rng) for index in held_out]
    samples = [replace(sample, colour=PLAIN) for sample in samples]
    logits, scores = answer(network, samples)
    found = np.array([iou(one > 0, s.mask > 0) for one, s in zip(logits, samples, strict=True)])
    raw = np.log(scores / (1 - scores))

    def error(parameters: np.ndarray) -> float:
        return float(np.mean((1 / (1 + np.exp(-parameters[0] * raw - parameters[1])) - found) ** 2))

    scale, shift = scipy.optimize.minimize(error, (1.0, 0.0), method="Nelder-Mead").x
    last = network.score[-1]
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
    print(
        f"score: scale {scale:.3f}, shift {shift:.3f}; "
        f"mean square error {error((1, 0)):.4f} → {error((scale, shift)):.4f}"
    )


def _save(content: Any, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


if __name__ == "__main__":
    main()
