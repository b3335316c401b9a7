"""bfloat16 beside float32: the same segmenter and the same policy with random weights. Prints the figures and writes
parity.json.

python bench/parity.py --device cuda
python bench/parity.py --short --out DIR     (tiny sizes on any machine, for the tests: the numbers mean nothing)

mask_iou: mean IoU of the two types' masks of the same 16 prompts. log_probability: the largest difference of a token's,
in nats; log_probability_mean: the mean.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from step import SMALL, save_policy
from workload import Workload, group, photograph

from segrl.devices import device_name
from segrl.files import write_atomically
from segrl.memory_estimate.dimensions import PolicyModel, Vision
from segrl.segmenters import segment

HERE = Path(__file__).parent
MODEL = PolicyModel("qwen2_5_vl", 2048, 4, 16, 2, 128, 11008, 1024, True, Vision(1280, 4, 3420, patch=14))
"""Qwen2.5-VL-3B's width, four layers deep."""


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        found: dict[str, Any] = {"device": device_name(), "torch": torch.__version__}
        found |= masks_of(place, options.device, options.short) | texts_of(place, options.device, options.short)
    for name, value in found.items():
        print(f"{name:>20} {value:.4g}" if isinstance(value, float) else f"{name:>20} {value}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "parity.json", json.dumps(found, indent=1) + "\n")


def masks_of(place: Path, device: str, short: bool) -> dict[str, float]:
    """Masks of the segmenter in both types."""
    image = photograph(*((96, 72) if short else (1024, 768)))
    answers = group(image, 4 if short else 16)
    masks = []
    for dtype in ("float32", "bfloat16"):
        work = Workload("sam2" if short else "hiera_large", place, device, dtype)
        found = segment(work.segmenter, [image] * len(answers), answers)
        masks.append(torch.stack([one.union.cpu() for one in found]))
        del work
    both, either = (masks[0] & masks[1]).sum((1, 2)), (masks[0] | masks[1]).sum((1, 2))
    return {"mask_iou": float((both / either.clamp(min=1)).where(either > 0, torch.tensor(1.0)).mean())}


@torch.no_grad()
def texts_of(place: Path, device: str, short: bool) -> dict[str, float]:
    """Log-probabilities of the tokens of one picture and text in both types."""
    import transformers as t

    save_policy(place / "policy", SMALL if short else MODEL)
    processor = t.AutoProcessor.from_pretrained(place / "policy")
    content = [{"type": "image"}, {"type": "text", "text": "the small red circle " * 8}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    side = 56 if short else 840
    inputs = processor(text=[text], images=[photograph(side, side)], return_tensors="pt").to(device)
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        model = t.AutoModelForImageTextToText.from_pretrained(place / "policy", dtype=dtype).to(device).eval()
        logits = model(**inputs).logits[0, :-1].float()
        values.append(logits.log_softmax(-1).gather(-1, inputs["input_ids"][0, 1:, None])[:, 0].cpu())
        del model
    difference = (values[0] - values[1]).abs()
    return {"log_probability": float(difference.max()), "log_probability_mean": float(difference.mean())}


if __name__ == "__main__":
    main()
