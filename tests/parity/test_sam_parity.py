"""Our masks against the plain transformers path: processor, model, post-processing; one image, one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from random_weights import save_random

from segrl import segmenters
from segrl.segmenters.checkpoint import FAMILIES
from segrl.segmenters.sam import SamSegmenter
from segrl.types import ORIGINAL, MaskPrompt

KINDS = ("sam", "sam_hq", "sam2", "sam2_video", "sam3_tracker", "sam3_video", "edgetam")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    @cache
    def build(kind: str) -> Path:
        return save_random(kind, tmp_path_factory.mktemp(kind))

    return build


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colours, so that resizing means something."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def prompts_for(image: Image.Image) -> list[MaskPrompt]:
    """A box, points, both, and two of them once more with other numbers."""
    w, h = image.size
    box, other = (0.1 * w, 0.2 * h, 0.63 * w, 0.81 * h), (0.4 * w, 0.05 * h, 0.95 * w, 0.5 * h)
    points, labels = ((0.3 * w, 0.4 * h), (0.5 * w, 0.6 * h), (0.8 * w, 0.1 * h)), (1, 1, 0)
    return [
        MaskPrompt(box, frame=ORIGINAL),
        MaskPrompt(None, points, labels, ORIGINAL),
        MaskPrompt(box, points, labels, ORIGINAL),
        MaskPrompt(other, frame=ORIGINAL),
        MaskPrompt(other, points[::-1], labels, ORIGINAL),
    ]


class Plain:
    """The reference: nothing shared between prompts."""

    def __init__(self, path: Path) -> None:
        self.model = transformers.AutoModelForMaskGeneration.from_pretrained(path).eval()
        config = transformers.AutoConfig.from_pretrained(path)
        self.processor = getattr(transformers, FAMILIES[config.model_type].processor).from_pretrained(path)

    def __call__(
        self, image: Image.Image, prompt: MaskPrompt, multimask: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `(h, w)` and mask `(H, W)`."""
        asked: dict[str, Any] = {}
        if prompt.box_xyxy is not None:
            asked["input_boxes"] = [[list(prompt.box_xyxy)]]
        if prompt.points_xy:
            asked["input_points"] = [[[list(point) for point in prompt.points_xy]]]
            asked["input_labels"] = [[list(prompt.labels)]]
        inputs = self.processor(images=image, return_tensors="pt", **asked)
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        if prompt.prior_logits is not None:
            inputs["input_masks"] = prompt.prior_logits[None, None]
        with torch.no_grad():
            output = self.model(**inputs, multimask_output=multimask)
        best = int(output.iou_scores[0, 0].argmax())
        masks = self.processor.post_process_masks(output.pred_masks, *sizes)
        return output.pred_masks[0, 0, best], masks[0][0, best]


def check(
    segmenter: SamSegmenter,
    plain: Plain,
    images: Sequence[Image.Image],
    prompts: Sequence[Sequence[MaskPrompt]],
    multimask: bool = False,
) -> None:
    embeddings = segmenter.encode(images)
    low, masks = segmenter.decode_logits(embeddings, prompts), segmenter.decode(embeddings, prompts)
    wrong = pixels = 0
    for i, image in enumerate(images):
        assert masks[i].shape == (len(prompts[i]), image.height, image.width)
        for row, prompt in enumerate(prompts[i]):
            logits, mask = plain(image, prompt, multimask)
            torch.testing.assert_close(low[i].logits[row], logits, atol=1e-4, rtol=0)
            wrong, pixels = wrong + int((masks[i][row] ^ mask).sum()), pixels + mask.numel()
    assert wrong <= pixels / 10_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_equal_the_plain_path(checkpoint, kind, multimask):
    path = checkpoint(kind)
    segmenter = segmenters.load(str(path), multimask=multimask, device="cpu", encode_batch=2, decode_batch=3)
    images = [photo(32, 32), photo(33, 57, 1), photo(320, 200, 2)]
    check(segmenter, Plain(path), images, [prompts_for(image) for image in images], multimask)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_large_photograph(checkpoint, kind):
    path, image = checkpoint(kind), photo(4000, 3000)
    check(segmenters.load(str(path), device="cpu"), Plain(path), [image], [prompts_for(image)[2:3]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_of_an_earlier_turn(checkpoint, kind):
    path, image = checkpoint(kind), photo(50, 70)
    segmenter = segmenters.load(str(path), device="cpu")
    first = prompts_for(image)[:3]
    [low] = segmenter.decode_logits(segmenter.encode([image]), [first])
    second = [
        MaskPrompt(p.box_xyxy, p.points_xy, p.labels, ORIGINAL, prior)
        for p, prior in zip(first, low.logits, strict=True)
    ]
    check(segmenter, Plain(path), [image], [[*first, *second]])
    [changed] = segmenter.decode_logits(segmenter.encode([image]), [second])
    assert (changed.logits - low.logits).abs().max() > 1e-3


def test_a_mask_does_not_depend_on_its_batch(checkpoint):
    path = str(checkpoint("sam2"))
    images = [photo(40, 30, seed) for seed in range(3)]
    prompts = [prompts_for(image) for image in images]
    one = segmenters.load(path, device="cpu", decode_batch=1)
    alone = [one.decode(one.encode([image]), [some])[0] for image, some in zip(images, prompts, strict=True)]
    many = segmenters.load(path, device="cpu", encode_batch=3, decode_batch=16)
    order = [2, 0, 1]
    mixed = many.decode(many.encode([images[i] for i in order]), [prompts[i][::-1] for i in order])
    for place, i in enumerate(order):
        assert torch.equal(mixed[place].flip(0), alone[i])


def test_half_precision_keeps_the_geometry(checkpoint):
    path, image = checkpoint("sam2"), photo(90, 60)
    segmenter = segmenters.load(str(path), device="cpu", dtype="bfloat16")
    assert segmenter.dtype == torch.bfloat16
    prompts = prompts_for(image)
    masks = segmenter.decode(segmenter.encode([image]), [prompts])[0]
    plain = Plain(path)
    expected = torch.stack([plain(image, prompt)[1] for prompt in prompts])
    assert (masks ^ expected).float().mean() < 0.05
