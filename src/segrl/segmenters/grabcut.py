"""Segmenters that need no weights: a fake that fills boxes, and GrabCut (Rother, Kolmogorov and Blake, 2004), OpenCV's.

GrabCut cuts each prompt in a region of its own: the box (or, without a box, a square of `REACH` around the
foreground points) is probable foreground, a margin around it is background, and discs at the points
are sure. Two iterations, seeded per prompt, so a mask depends on its image and prompt alone.

OpenCV finds the minimum cut by Boykov and Kolmogorov's algorithm (2004). Where object and background look alike,
flow has to travel far, and the time grows with the square of the pixels. So the pixels are bounded: `MAX_PIXELS` in any
region, 4,096 in a drawn one whose parts repeat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segrl.devices import core_count
from segrl.masks import box_to_mask
from segrl.segmenters.protocol import Decoded, Embedding, check_frames
from segrl.types import Box, MaskPrompt, Point

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image


POINT_RADIUS = 0.05
"""Radius of the fake's disc at a point, as a share of the image's longer side."""


class BoxSegmenter:
    """A fake for tests and for rewards on boxes alone: a box is a filled rectangle, points without one are discs."""

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """Nothing but the sizes."""
        return [Embedding((image.height, image.width), {}) for image in images]

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`. Points beside a box, and background points, change nothing."""
        import numpy as np
        import torch

        masks = []
        for embedding, image_prompts in zip(embeddings, prompts, strict=True):
            check_frames(image_prompts)
            rows = [_draw(prompt, embedding.image_hw) for prompt in image_prompts]
            stacked = np.stack(rows) if rows else np.zeros((0, *embedding.image_hw), dtype=bool)
            masks.append(torch.from_numpy(stacked))
        return masks


def _draw(prompt: MaskPrompt, image_hw: tuple[int, int]) -> np.ndarray:
    import numpy as np

    if prompt.box_xyxy is not None:
        return box_to_mask(prompt.box_xyxy, image_hw)
    mask = np.zeros(image_hw, dtype=bool)
    for point, label in zip(prompt.points_xy, prompt.labels, strict=True):
        if label == 1:
            mask |= disc(point, POINT_RADIUS * max(image_hw), image_hw)
    return mask


def disc(center_xy: Point, radius_px: float, image_hw: tuple[int, int]) -> np.ndarray:
    """`(H, W)` bool: the pixels at most `radius_px` from the pixel that holds `center_xy`, itself included."""
    import numpy as np

    x, y = int(center_xy[0]), int(center_xy[1])
    ys, xs = np.ogrid[: image_hw[0], : image_hw[1]]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius_px**2


SEED = 0
ITERATIONS = 2
MARGIN = 0.1
"""Width of the background margin, as a share of the longer side of what it surrounds (at least 4 pixels)."""
REACH = 0.15
"""How far an object reaches from its foreground points where there is no box, as a share of the longer side."""
DISC_RADIUS = 0.018
"""Radius of the disc of sure pixels at a point, as a share of the image's longer side (at least 1 pixel)."""
COLLAPSE = 0.05
"""Without foreground points, a cut that keeps less than this share of its box has collapsed (GrabCut's smoothing
favours short outlines); the box, less the background discs, is the mask then."""

MAX_PIXELS = 160_000
"""A region with more pixels is cut at this size and its mask enlarged, whatever `max_side` is: 400×400, so that no
picture of ECSSD or DUTS is affected."""
REPEATING = 0.1
"""A region with fewer different squares of 2×2 pixels than this share of its pixels is drawn, not photographed: its
parts repeat, so that nothing but the outline's length tells one cut from another, and the minimum cut then takes time
by the square of the area (250×250 of one colour: over a minute). Photographs measured from 0.36 up (500 of ECSSD and
DUTS), flat pictures, chequers and scattered dots 0.02 at most."""
REPEATING_SIDE = 64
"""Longer side at which such a region is cut: at most 4,096 pixels, well under a second."""

BACKGROUND, FOREGROUND, PROBABLE_BACKGROUND, PROBABLE_FOREGROUND = 0, 1, 2, 3
"""OpenCV's own codes (GC_BGD, GC_FGD, GC_PR_BGD, GC_PR_FGD)."""


@dataclass(frozen=True)
class GrabCut:
    """The segmenter; see the module.

    max_side: a region whose longer side has more pixels is cut at this size and its mask enlarged
    (None: only one of more than `MAX_PIXELS`). Cost grows with the area; small regions lose thin parts, since GrabCut's
    smoothing is a fixed price per pixel of outline. threads: prompts cut at once (default: the
    cores this process may use, at most 8).

    Prompts with background points only ask for nothing: their mask is empty. Never raises for a
    valid prompt, whatever the image; raises ValueError for options that are no whole numbers from 1 on.
    `prior_logits` (`(h, w)` over the whole image) is the earlier labelling: where it is above 0 the interior begins as
    probable foreground, elsewhere as probable background, and the points that were added are sure.
    """

    max_side: int | None = 512
    threads: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("max_side", self.max_side), ("threads", self.threads)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{option} is a whole number from 1 on, or none, not {value!r}")

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """The pixels themselves, as BGR `(H, W, 3)` uint8."""
        import numpy as np
        import torch

        bgr = [np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1]) for image in images]
        return [Embedding(pixels.shape[:2], {"bgr": torch.from_numpy(pixels)}) for pixels in bgr]

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`; the masks are on the CPU."""
        import numpy as np
        import torch

        jobs = [
            (embedding.tensors["bgr"].numpy(), prompt, self.max_side)
            for embedding, image_prompts in zip(embeddings, prompts, strict=True)
            for prompt in image_prompts
        ]
        check_frames(job[1] for job in jobs)
        cuts = iter(self._map(jobs))
        masks = []
        for embedding, image_prompts in zip(embeddings, prompts, strict=True):
            stacked = np.zeros((len(image_prompts), *embedding.image_hw), dtype=bool)
            for row in stacked:
                row[:] = next(cuts)
            masks.append(torch.from_numpy(stacked))
        return masks

    def decode_turn(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[Decoded]:
        """See `ContinuingSegmenter.decode_turn`: the logits are 1 on the mask and −1 off it, at the original size."""
        return [Decoded(masks, logits=masks.float() * 2 - 1) for masks in self.decode(embeddings, prompts)]

    def _map(self, jobs: Sequence[tuple[np.ndarray, MaskPrompt, int | None]]) -> list[np.ndarray]:
        workers = min(self.threads or core_count(), 8, len(jobs))
        with _one_opencv_thread():
            if workers <= 1:
                return [_cut(*job) for job in jobs]
            with ThreadPoolExecutor(workers) as pool:
                return list(pool.map(lambda job: _cut(*job), jobs))


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """OpenCV's own threads off: prompts run side by side instead."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _cut(bgr: np.ndarray, prompt: MaskPrompt, max_side: int | None) -> np.ndarray:
    """The mask of one prompt, bool `(H, W)`."""
    import numpy as np

    image_hw = bgr.shape[:2]
    mask = np.zeros(image_hw, dtype=bool)
    interior = _interior(prompt, image_hw)
    if interior is None:
        return mask
    x1, y1, x2, y2 = _region(interior, prompt, image_hw)
    labels = _labels(interior, prompt, image_hw, (x1, y1, x2, y2))
    mask[y1:y2, x1:x2] = _grabcut(bgr[y1:y2, x1:x2], labels, max_side)
    if 1 not in prompt.labels and mask.sum() < COLLAPSE * (labels != BACKGROUND).sum():
        mask[y1:y2, x1:x2] = labels != BACKGROUND
    return mask


def _radius(image_hw: tuple[int, int]) -> int:
    return max(1, round(DISC_RADIUS * max(image_hw)))


def _interior(prompt: MaskPrompt, image_hw: tuple[int, int]) -> Box | None:
    """Where the object may be: the box, or what the foreground points reach; None if nothing is asked for."""
    if prompt.box_xyxy is not None:
        return prompt.box_xyxy
    points = [point for point, label in zip(prompt.points_xy, prompt.labels, strict=True) if label == 1]
    if not points:
        return None
    reach = REACH * max(image_hw)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (min(xs) - reach, min(ys) - reach), (max(xs) + reach + 1, max(ys) + reach + 1)
    return (max(low[0], 0.0), max(low[1], 0.0), min(high[0], image_hw[1]), min(high[1], image_hw[0]))


def _region(interior: Box, prompt: MaskPrompt, image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels `(x1, y1, x2, y2)` to cut: the interior and the foreground discs with a margin, inside the image."""
    radius = _radius(image_hw)
    x1, y1, x2, y2 = interior
    for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True):
        if label == 1:
            x1, y1, x2, y2 = min(x1, x - radius), min(y1, y - radius), max(x2, x + radius), max(y2, y + radius)
    margin = max(4, round(MARGIN * max(x2 - x1, y2 - y1)))
    low = max(int(x1) - margin, 0), max(int(y1) - margin, 0)
    return *low, min(int(x2) + margin + 1, image_hw[1]), min(int(y2) + margin + 1, image_hw[0])


def _labels(
    interior: Box, prompt: MaskPrompt, image_hw: tuple[int, int], region: tuple[int, int, int, int]
) -> np.ndarray:
    """OpenCV's start labels for the region, uint8 `(h, w)`; foreground discs lie over background discs."""
    import numpy as np

    x1, y1, x2, y2 = region
    hw = (y2 - y1, x2 - x1)
    inside = box_to_mask((interior[0] - x1, interior[1] - y1, interior[2] - x1, interior[3] - y1), hw)
    labels = np.where(inside, PROBABLE_FOREGROUND, BACKGROUND).astype(np.uint8)
    if prompt.prior_logits is not None and (earlier := _earlier(prompt.prior_logits, image_hw, region) & inside).any():
        labels[inside & ~earlier] = PROBABLE_BACKGROUND
    for wanted in (0, 1):
        for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True):
            if label == wanted:
                labels[disc((int(x) - x1, int(y) - y1), _radius(image_hw), hw)] = FOREGROUND if label else BACKGROUND
    if not (labels == BACKGROUND).any():
        labels[[0, -1], :] = labels[:, [0, -1]] = BACKGROUND
    return labels


def _earlier(logits: torch.Tensor, image_hw: tuple[int, int], region: tuple[int, int, int, int]) -> np.ndarray:
    """Bool `(h, w)`: the earlier mask within the region."""
    import cv2

    whole = logits.detach().float().cpu().numpy()
    if whole.shape != image_hw:
        whole = cv2.resize(whole, (image_hw[1], image_hw[0]), interpolation=cv2.INTER_LINEAR)
    x1, y1, x2, y2 = region
    return whole[y1:y2, x1:x2] > 0


def _grabcut(bgr: np.ndarray, labels: np.ndarray, max_side: int | None) -> np.ndarray:
    """Bool `(h, w)`: the cut; `labels` themselves where they leave nothing to decide."""
    import cv2
    import numpy as np

    height, width = labels.shape
    sides = [1.0, math.sqrt(MAX_PIXELS / (height * width))]
    sides += [] if max_side is None else [max_side / max(height, width)]
    bgr, small = _reduced(bgr, labels, min(sides))
    if max(small.shape) > REPEATING_SIDE and _repeats(bgr):
        bgr, small = _reduced(bgr, small, REPEATING_SIDE / max(small.shape))
    if (small == BACKGROUND).any() and (small == PROBABLE_FOREGROUND).any():
        models, no_rect = (np.zeros((1, 65)), np.zeros((1, 65))), (0, 0, 0, 0)
        cv2.setRNGSeed(SEED)
        cv2.grabCut(bgr, small, no_rect, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    cut = (small & 1).astype(bool)
    if cut.shape == labels.shape:
        return cut
    return cv2.resize(cut.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def _reduced(bgr: np.ndarray, labels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Both at `scale`, as arrays of their own; at least one pixel."""
    import cv2
    import numpy as np

    if scale >= 1:
        return np.ascontiguousarray(bgr), labels.copy()
    wh = (max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale)))
    small = cv2.resize(bgr, wh, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(labels, wh, interpolation=cv2.INTER_NEAREST)


def _repeats(bgr: np.ndarray) -> bool:
    """Whether the region's squares of 2×2 pixels are few; see `REPEATING`."""
    import numpy as np

    if min(bgr.shape[:2]) < 2:
        return False
    factors = np.random.default_rng(0).integers(1, 2**63, (2, 2, 3), dtype=np.uint64)
    numbers = sum(
        # Wraps around at 2**64: a hash, in which different squares meet about never.
        (bgr[y : bgr.shape[0] - 1 + y, x : bgr.shape[1] - 1 + x].astype(np.uint64) * factors[y, x]).sum(-1)
        for y in (0, 1)
        for x in (0, 1)
    )
    return len(np.unique(numbers)) < REPEATING * bgr.shape[0] * bgr.shape[1]
