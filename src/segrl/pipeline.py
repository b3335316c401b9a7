"""Policy, answer format and segmenter as the one object that a user holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segrl import answers, overlay, policies
from segrl.datasets.images import as_image, content_id
from segrl.types import Answer, MaskPrompt, Status

if TYPE_CHECKING:
    from segrl.policies import Policy
    from segrl.road import Road
    from segrl.segmenters import Segmenter

ImageLike = Image.Image | Path | str | bytes | np.ndarray

DEFAULT_SEGMENTER = "facebook/sam2.1-hiera-large"
"""The frozen segmenter of both papers' families; the tiny policy goes with GrabCut, which needs no weights."""

WEIGHTLESS = ("grabcut", "box")
"""Segmenters that run on the CPU whatever the policy runs on."""


@dataclass(frozen=True)
class Result:
    """What a pipeline says about one image and one query.

    image: RGB as it was read. masks: `(N, H, W)` bool at the image's size, one per object found;
    N = 0 where nothing was found or the answer could not be read, and `status` tells which.
    answer: status, reasoning and mask prompts in original pixels. text: what the policy wrote.
    """

    image: Image.Image
    query: str
    text: str
    answer: Answer
    masks: np.ndarray

    @property
    def status(self) -> Status:
        """OK, NO_TARGET ("nothing there"), or what was wrong with the answer."""
        return self.answer.status

    @property
    def reasoning(self) -> str | None:
        """The text between the think tags; None without them."""
        return self.answer.reasoning

    @property
    def prompts(self) -> tuple[MaskPrompt, ...]:
        """The boxes and points, one mask prompt per mask, in original pixels."""
        return self.answer.prompts

    @property
    def mask(self) -> np.ndarray:
        """`(H, W)` bool: all masks as one."""
        return np.asarray(self.masks.any(axis=0))

    def overlay(self) -> Image.Image:
        """A copy of the image with masks, boxes and points drawn over it (`segrl.overlay`)."""
        return overlay.draw(self.image, self.masks, self.prompts)


class Pipeline:
    """Images and queries in, masks out. `road` is built by `make_road`, or any other that reads this policy's texts."""

    def __init__(self, policy: Policy, road: Road, *, max_new_tokens: int = 512) -> None:
        self.policy, self.road, self.max_new_tokens = policy, road, max_new_tokens

    def segment(self, image: ImageLike, query: str) -> Result:
        """The answer to one query about one image: a path, bytes of a file, a PIL image or an array.

        Greedy, so the same call gives the same result. Raises DataError for an image that cannot be read.
        """
        return next(self.segment_many([(image, query)]))

    def segment_many(self, pairs: Iterable[tuple[ImageLike, str]], *, batch_size: int = 1) -> Iterator[Result]:
        """A result for each (image, query), in order; `batch_size` pairs are open and generated at a time."""
        rest = iter(pairs)
        while window := [(as_image(image), query) for image, query in islice(rest, batch_size)]:
            yield from self._segment(window, batch_size)

    def _segment(self, window: Sequence[tuple[Image.Image, str]], batch_size: int) -> Iterator[Result]:
        images = [image for image, _ in window]
        prompts = [self.road.answer_format.prompt(query) for _, query in window]
        groups = self.policy.generate(images, prompts, max_new_tokens=self.max_new_tokens, batch_size=batch_size)
        completions = [group[0] for group in groups]
        segmentations = self.road.read(
            [completion.text for completion in completions],
            images,
            image_ids=[content_id(image) for image in images],
            truncated=[completion.truncated for completion in completions],
        )
        for (image, query), completion, one in zip(window, completions, segmentations, strict=True):
            yield Result(image, query, completion.text, one.answer, one.masks.cpu().numpy())


def make_road(policy: Policy, segmenter: Segmenter, answer_format: str | None = None) -> Road:
    """The road from this policy's texts to masks; `answer_format` None is the policy's own."""
    from segrl.road import Road

    chosen = answers.get(answer_format or policy.answer_format)
    return Road(answer_format=chosen, frame_for=policy.frame_for, segmenter=segmenter)


def load(
    policy: str = "tiny",
    *,
    segmenter: str | None = None,
    answer_format: str | None = None,
    max_new_tokens: int = 512,
    device: str | None = None,
    **policy_options: Any,
) -> Pipeline:
    """A pipeline by names: a policy (`tiny`, a directory, a name on the hub) and a segmenter that fits it.

    segmenter: a name for `segmenters.load`; without it GrabCut for `tiny` and SAM 2.1 large for the
    rest. policy_options: for instance `frame`, `input_wh`, `dtype` (`policies.loading.load`).
    Raises SegrlError with one line for anything that cannot be loaded.
    """
    from segrl import segmenters

    loaded = policies.load(policy, device=device, **policy_options)
    name = segmenter or ("grabcut" if policy == "tiny" else DEFAULT_SEGMENTER)
    where = {} if device is None or name in WEIGHTLESS else {"device": device}
    road = make_road(loaded, segmenters.load(name, **where), answer_format)
    return Pipeline(loaded, road, max_new_tokens=max_new_tokens)
