"""What is measured: a segmenter with random weights, images, prompts, and the plain path beside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from segrl.segmenters import load, segment
from segrl.segmenters.loading import load_sam
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from random_weights import save_random

POINT_LABELS = (1, 1, 0)


@dataclass
class Workload:
    """A checkpoint of `kind` with random weights in `directory`, on `device` in `dtype`; photographs of `image_wh`."""

    kind: str
    directory: Path
    device: str
    dtype: str
    image_wh: tuple[int, int] = (1024, 768)

    def photograph(self, seed: int = 0) -> Image.Image:
        """One of the images that everything is measured on."""
        return photograph(*self.image_wh, seed)

    @cached_property
    def segmenter(self) -> Any:
        """Ours, loaded once."""
        path = self.directory / self.kind
        if not (path / "model.safetensors").exists():
            save_random(self.kind, path)
        load_sam.cache_clear()
        return load(str(path), device=self.device, dtype=self.dtype)

    def forget(self) -> None:
        """Empty the cache of embeddings and set the counters to 0."""
        segmenter = self.segmenter
        segmenter.stores = [type(store)(store.max_bytes, store.dtype) for store in segmenter.stores]
        segmenter.encoder_calls = segmenter.decoder_calls = 0

    def ours(self, images: Sequence[Image.Image], answers: Sequence[Answer]) -> None:
        """The road that a reward takes from answers to masks."""
        segment(self.segmenter, images, answers)

    @torch.no_grad()
    def plain(self, image: Image.Image, prompts: Sequence[MaskPrompt]) -> None:
        """The plain path: processor, model and post-processing once per prompt."""
        processor, model = self.segmenter.processor, self.segmenter.model
        for prompt in prompts:
            inputs = processor(
                images=image,
                input_boxes=[[list(prompt.box_xyxy or ())]],
                input_points=[[[list(point) for point in prompt.points_xy]]],
                input_labels=[[list(prompt.labels)]],
                return_tensors="pt",
            )
            sizes = inputs.pop("original_sizes")
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            output = model(**inputs, multimask_output=False)
            processor.post_process_masks(output.pred_masks.float(), sizes)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """The encoder's input for `image`."""
        inputs = self.segmenter.processor.image_processor(images=image, return_tensors="pt")
        return inputs["pixel_values"].to(self.segmenter.device, self.segmenter.dtype)

    @torch.no_grad()
    def bare_encode(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """The encoder alone."""
        return self.segmenter.model.get_image_embeddings(pixels)

    @torch.no_grad()
    def bare_decode(self, features: Sequence[torch.Tensor], count: int, chunk: int) -> None:
        """The decoder alone, `count` prompts of one box and three points in chunks of `chunk`."""
        model = self.segmenter.model
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            model(
                image_embeddings=[level.expand(n, *level.shape[1:]) for level in features],
                input_boxes=torch.tensor([[[10.0, 10.0, 40.0, 50.0]]] * n, device=model.device),
                input_points=torch.tensor([[[[15.0, 15.0], [30.0, 30.0], [12.0, 48.0]]]] * n, device=model.device),
                input_labels=torch.tensor([[POINT_LABELS]] * n, device=model.device),
                multimask_output=False,
            )


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def group(image: Image.Image, completions: int, objects: int = 1, seed: int = 0) -> list[Answer]:
    """`completions` different answers about `image`, each with `objects` boxes and three points in every box."""
    rng = np.random.default_rng(seed)
    return [
        Answer(Status.OK, tuple(random_prompt(rng, image.size) for _ in range(objects))) for _ in range(completions)
    ]


def random_prompt(rng: np.random.Generator, image_wh: tuple[int, int]) -> MaskPrompt:
    """A box of an eighth to half of each side, and three points in it, in pixels of an image of that size."""
    w, h = image_wh
    x1, y1 = rng.uniform(0, w / 2), rng.uniform(0, h / 2)
    x2, y2 = x1 + rng.uniform(w / 8, w / 2), y1 + rng.uniform(h / 8, h / 2)
    points = tuple((float(rng.uniform(x1, x2)), float(rng.uniform(y1, y2))) for _ in POINT_LABELS)
    return MaskPrompt((float(x1), float(y1), float(x2), float(y2)), points, POINT_LABELS, ORIGINAL)
