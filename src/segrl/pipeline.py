"""Policy, answer format and segmenter as the one object that a user holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segrl import answers, overlay, policies
from segrl.batching import AutoBatch, Batch, BatchSize, ImageLike, opened, windows
from segrl.errors import SegrlError, ServerError
from segrl.images import AS_IT_IS, as_image, content_id
from segrl.images import Reading as PictureReading
from segrl.policies import MAX_NEW_TOKENS
from segrl.segmenters.protocol import ImageTooLarge
from segrl.tiny import POLICIES
from segrl.types import ORIGINAL, Answer, FrameKind, MaskPrompt, Reading, Segmentation, Status

if TYPE_CHECKING:
    from segrl.policies import Completion, Policy
    from segrl.segmenters import Segmenter
    from segrl.text_to_masks import TextToMasks

__all__ = ["ImageLike", "Pipeline", "Result", "Stream", "load", "make_text_to_masks"]

logger = logging.getLogger(__name__)

Pair = tuple[Image.Image, str]

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
    scores: `(N,)` float32, the IoU that the segmenter itself expects of each mask (about 0 to 1; no
    promise, and nothing about whether it is the right object); None from a segmenter that gives none
    (GrabCut).
    """

    image: Image.Image
    query: str
    text: str
    answer: Answer
    masks: np.ndarray
    scores: np.ndarray | None = None

    @classmethod
    def of(cls, image: Image.Image, query: str, text: str, one: Segmentation) -> Result:
        """A text that was read, with its masks."""
        scores = None if one.scores is None else one.scores.cpu().numpy()
        return cls(image, query, text, one.answer, one.masks.cpu().numpy(), scores)

    @property
    def status(self) -> Status:
        """OK, NO_TARGET ("nothing there"), or what was wrong with the answer."""
        return self.answer.status

    @property
    def reasoning(self) -> str | None:
        """The text between the think tags; None without them."""
        return self.answer.reasoning

    @property
    def repairs(self) -> tuple[str, ...]:
        """What the lenient reading mended or left out, one line each; empty where the answer was as it should be."""
        return self.answer.repairs

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
    """Images and queries in, masks out. text_to_masks: by `make_text_to_masks`, or any that reads this policy's texts.

    An image is a path, the bytes of an image file, a PIL image, or an array `(H, W)` or `(H, W, 3)` of
    uint8 in RGB order; addresses are never opened. Decoding is greedy, so the same call gives the same result.
    """

    def __init__(self, policy: Policy, text_to_masks: TextToMasks, *, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.policy, self.text_to_masks, self.max_new_tokens = policy, text_to_masks, max_new_tokens
        self._auto = AutoBatch()

    def segment(self, image: ImageLike, query: str) -> Result:
        """The answer to one query about one image. Raises DataError for an image that cannot be read."""
        return next(self.segment_many([(image, query)]))

    def segment_many(self, pairs: Iterable[tuple[ImageLike, str]], *, batch_size: BatchSize = 1) -> Iterator[Result]:
        """A result for each (image, query), in order; `batch_size` pairs are open and answered at a time.

        "auto" looks for the fastest batch that fits (`batching.AutoBatch`). Raises what `try_many` yields.
        """
        for result in self.try_many(pairs, batch_size=batch_size):
            if isinstance(result, SegrlError):
                raise result
            yield result

    def try_many(
        self,
        pairs: Iterable[tuple[ImageLike, str]],
        *,
        batch_size: BatchSize = 1,
        pictures: PictureReading = AS_IT_IS,
    ) -> Iterator[Result | SegrlError]:
        """As `segment_many`, but an image that cannot be used gives its error in its place and stops nothing.

        pictures: what the reader of image files is told, for instance which page.

        DataError: it cannot be read. ModelError: alone it does not fit in the device's memory. Raised is
        a ServerError that no other image would escape: the server is gone, or refuses the key.
        """
        batch = self._auto if batch_size == "auto" else Batch(batch_size)
        for window in windows(opened(pairs, pictures), batch):
            usable = [(image, query) for image, query in window if isinstance(image, Image.Image)]
            results = iter(self._try(usable, batch))
            yield from (image if isinstance(image, SegrlError) else next(results) for image, _ in window)

    def stream(self, image: ImageLike, query: str) -> Stream:
        """The same answer as `segment` gives, told while it is written."""
        return Stream(self, as_image(image), query)

    def masks(self, image: ImageLike, prompts: Sequence[MaskPrompt], query: str = "") -> Result:
        """The masks of boxes and points that somebody drew or edited, without asking the policy.

        prompts: in original pixels, or without a frame, which then is meant; they are cut to the image,
        and one whose box lies outside it makes the status BAD_VALUES. No prompts give no masks. A segmenter
        of the SAM family encodes an image once: while it stays in the cache, further calls only decode.
        """
        opened_image = as_image(image)
        in_pixels = tuple(replace(p, frame=ORIGINAL) if p.frame.kind is FrameKind.UNKNOWN else p for p in prompts)
        answer = Answer(Status.OK if in_pixels else Status.NO_TARGET, in_pixels)
        return Result.of(opened_image, query, "", self.text_to_masks.masks([answer], [opened_image])[0])

    def _try(self, pairs: Sequence[Pair], batch: Batch) -> list[Result | SegrlError]:
        """Results in order. What fails or does not fit is halved until the one that cannot be used stands alone."""
        import torch

        if not pairs:
            return []
        begun = time.perf_counter()
        try:
            results = self._answer(pairs)
            batch.took(len(pairs), time.perf_counter() - begun)
            return [*results]
        except SegrlError as error:
            if isinstance(error, ServerError) and not error.is_about_the_request:
                raise
            if len(pairs) == 1:
                return [error]
        except torch.OutOfMemoryError:
            if len(pairs) == 1:
                return [_does_not_fit(pairs[0][0])]
            batch.shrink(len(pairs))
        half = len(pairs) // 2
        return self._try(pairs[:half], batch) + self._try(pairs[half:], batch)

    def _answer(self, pairs: Sequence[Pair]) -> list[Result]:
        images = [image for image, _ in pairs]
        prompts = [self.text_to_masks.answer_format.prompt(query) for _, query in pairs]
        groups = self.policy.generate(images, prompts, max_new_tokens=self.max_new_tokens, batch_size=len(pairs))
        return self._read(pairs, [group[0] for group in groups])

    def _read(self, pairs: Sequence[Pair], completions: Sequence[Completion]) -> list[Result]:
        images = [image for image, _ in pairs]
        segmentations = self.text_to_masks.read(
            [completion.text for completion in completions],
            images,
            image_ids=[content_id(image) for image in images],
            truncated=[completion.truncated for completion in completions],
        )
        return [
            Result.of(image, query, completion.text, one)
            for (image, query), completion, one in zip(pairs, completions, segmentations, strict=True)
        ]


class Stream(Iterator[str]):
    """An answer while it is written: an iterator over pieces of the policy's text, and `result` at its end.

    stream = model.stream("photo.jpg", "the cup")
    for piece in stream: print(piece, end="")
    stream.result.masks

    text: what was written so far. Use `close` (or let go of the stream) to end the work early.
    """

    def __init__(self, pipeline: Pipeline, image: Image.Image, query: str) -> None:
        self._pipeline, self._pair, self.text = pipeline, (image, query), ""
        self._result: Result | None = None
        self._pieces = self._run()

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def result(self) -> Result:
        """The result; what is not written yet is waited for. Raises SegrlError for a stream that was closed early."""
        for _ in self:
            pass
        if self._result is None:
            raise SegrlError("this answer was stopped before its end and has no result")
        return self._result

    def close(self) -> None:
        """Ends the work; `result` stays what it is."""
        self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        pipeline, (image, query) = self._pipeline, self._pair
        prompt = pipeline.text_to_masks.answer_format.prompt(query)
        pieces = policies.stream(pipeline.policy, image, prompt, max_new_tokens=pipeline.max_new_tokens)
        completion = yield from self._kept(pieces)
        (self._result,) = pipeline._read([self._pair], [completion])

    def _kept(self, pieces: Generator[str, None, Completion]) -> Generator[str, None, Completion]:
        try:
            while True:
                piece = next(pieces)
                self.text += piece
                yield piece
        except StopIteration as end:
            completion: Completion = end.value
            return completion
        finally:
            pieces.close()


def _does_not_fit(image: Image.Image) -> ImageTooLarge:
    return ImageTooLarge(
        image,
        f"an image of {image.width}×{image.height} alone does not fit in the device's memory: "
        "make it smaller, or give the policy an input_wh",
    )


def make_text_to_masks(
    policy: Policy, segmenter: Segmenter, answer_format: str | None = None, reading: Reading = "strict"
) -> TextToMasks:
    """The road from this policy's texts to masks; `answer_format` None is the policy's own."""
    from segrl.text_to_masks import TextToMasks

    chosen = answers.get(answer_format or policy.answer_format)
    return TextToMasks(chosen, policy.frame_for, segmenter, reading)


def fitting_segmenter(policy: str) -> str:
    """The segmenter that `load` takes for a policy: GrabCut for our own, that of a published one, the one that a
    policy was trained with (its segrl.json says which), or SAM 2.1 large."""
    row = policies.published(policy)
    if policy in POLICIES or row is not None:
        return row.segmenter if row is not None else "grabcut"
    return _trained_with(policy) or DEFAULT_SEGMENTER


def _trained_with(policy: str) -> str | None:
    if policies.is_served(policy):
        return None
    if Path(policy).is_dir():
        return policies.read_settings(policy).segmenter
    from segrl.policies.loading import find_settings

    return find_settings(policy).segmenter


def fitting_max_new_tokens(policy: str) -> int:
    """The longest answer that `load` lets a policy write: that of a published one, or MAX_NEW_TOKENS."""
    row = policies.published(policy)
    return row.max_new_tokens if row else MAX_NEW_TOKENS


def takes_device(name: str) -> bool:
    """Whether a policy or segmenter is put on a device here: not one behind a server, nor one without weights."""
    return name not in WEIGHTLESS and not policies.is_served(name)


def load(
    policy: str = "tiny",
    *,
    segmenter: str | None = None,
    answer_format: str | None = None,
    max_new_tokens: int | None = None,
    device: str | None = None,
    reading: Reading = "lenient",
    **policy_options: Any,
) -> Pipeline:
    """A pipeline by names: a policy (`tiny`, a directory, a name on the hub) and a segmenter that fits it.

    How a published checkpoint is asked and read is known by its name (`policies.published`), how one that segrl
    trained stands beside its weights; about any other a line is logged that says what was assumed.
    segmenter: a name for `segmenters.load`; without it `fitting_segmenter`. max_new_tokens: without it
    `fitting_max_new_tokens`. device: of policy and segmenter, of each that runs here (`takes_device`).
    reading: how answers are read; "strict" as training pays for them and the protocol counts them.
    policy_options: for instance `frame`, `input_wh`, `system`, `dtype` (`policies.loading.load`).
    Raises SegrlError with one line for anything that cannot be loaded.
    """
    from segrl import segmenters

    if answer_format is not None:
        answers.get(answer_format)  # a wrong name is told before minutes of loading
    loaded = policies.load(policy, answer_format=answer_format, **_placed(policy, device), **policy_options)
    if assumed := getattr(loaded, "assumed", ""):
        logger.warning(assumed)
    name = segmenter or fitting_segmenter(policy)
    text_to_masks = make_text_to_masks(loaded, segmenters.load(name, **_placed(name, device)), reading=reading)
    return Pipeline(loaded, text_to_masks, max_new_tokens=max_new_tokens or fitting_max_new_tokens(policy))


def _placed(name: str, device: str | None) -> dict[str, str]:
    return {"device": device} if device is not None and takes_device(name) else {}
