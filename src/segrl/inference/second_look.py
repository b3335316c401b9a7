"""The second look: the region around what was found is asked about again, larger, and the answer laid back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segrl.coordinates import mapped
from segrl.inference.decoding import Decoding, Reply, ask
from segrl.masks import mask_to_box

if TYPE_CHECKING:
    from PIL import Image

    from segrl.policies import Completion, Policy
    from segrl.text_to_masks import TextToMasks
    from segrl.types import Segmentation

CONTEXT = 2.0
"""Sides of the second look's region, in sides of what was found."""

SMALLEST = 1 / 3
"""Sides of the region at least, as a share of the image's."""

WHOLE = 0.8
"""A region that holds more of the image than this shows nothing new, and is not cropped."""


def look_again(
    policy: Policy,
    text_to_masks: TextToMasks,
    images: Sequence[Image.Image],
    queries: Sequence[str],
    decoding: Decoding,
    replies: Sequence[Reply],
) -> list[Reply]:
    """The answers with those put in their place that a nearer look gave: a mask that touches the first one's."""
    regions = [_region(one.segmentation, image.size) for one, image in zip(replies, images, strict=True)]
    again = [i for i, region in enumerate(regions) if region is not None]
    if not again:
        return list(replies)
    crops = [images[i].crop(_corners(regions[i])) for i in again]
    groups = ask(policy, text_to_masks, crops, [queries[i] for i in again], decoding)
    seconds = [group[0] for group in groups]
    read = text_to_masks.read([c.text for c in seconds], crops, truncated=[c.truncated for c in seconds])
    result = list(replies)
    for i, completion, segmentation in zip(again, seconds, read, strict=True):
        result[i] = _merge(replies[i], completion, _laid_back(segmentation, _corners(regions[i]), images[i].size))
    return result


def _corners(region: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    assert region is not None  # those without one are not cropped
    return region


def _region(segmentation: Segmentation, image_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole pixels `(x1, y1, x2, y2)` around what was found; None where nothing was, or nothing new would be seen."""
    box = mask_to_box(segmentation.union.cpu().numpy())
    if box is None:
        return None
    (x1, x2), (y1, y2) = (_span(box[i], box[i + 2], image_wh[i]) for i in (0, 1))
    covers = (x2 - x1) * (y2 - y1) / (image_wh[0] * image_wh[1])
    return (x1, y1, x2, y2) if covers <= WHOLE else None


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """The stretch of one side that the second look takes, moved into the image rather than cut."""
    length = min(max(CONTEXT * (high - low), SMALLEST * side), side)
    start = min(max((low + high - length) / 2, 0), side - length)
    return round(start), max(round(start) + 1, round(start + length))


def _laid_back(
    segmentation: Segmentation, region: tuple[int, int, int, int], image_wh: tuple[int, int]
) -> Segmentation:
    """An answer about a region as one about the whole image."""
    import torch

    x1, y1, x2, y2 = region
    masks = torch.zeros((len(segmentation.masks), image_wh[1], image_wh[0]), dtype=torch.bool)
    masks[:, y1:y2, x1:x2] = segmentation.masks.cpu()
    prompts = tuple(mapped(prompt, lambda x, y: (x + x1, y + y1)) for prompt in segmentation.answer.prompts)
    return replace(segmentation, answer=replace(segmentation.answer, prompts=prompts), masks=masks)


def _merge(first: Reply, completion: Completion, second: Segmentation) -> Reply:
    texts = (first.completion.text, completion.text)
    tokens = first.completion.n_tokens + completion.n_tokens
    seconds = first.completion.seconds + completion.seconds
    is_better = bool(np.any((second.union & first.segmentation.union.cpu()).numpy()))
    told = completion if is_better else first.completion
    kept = second if is_better else first.segmentation
    return Reply(replace(told, n_tokens=tokens, seconds=seconds), kept, texts)
