"""Policy, answer format and segmenter in one object: images and queries in, masks out."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from segrl import policies
from segrl.errors import DataError, SegrlError, ServerError
from segrl.images import AS_IT_IS, PictureOptions, as_image, content_id
from segrl.inference import PLAINLY, Decoding, answer
from segrl.inference.answering import check_turns, talk, view_of
from segrl.policies import MAX_NEW_TOKENS
from segrl.result import Result
from segrl.segmenters.protocol import ImageTooLarge
from segrl.turns import Conversation, person, take
from segrl.types import ORIGINAL, Answer, FrameKind, MaskPrompt, Status

if TYPE_CHECKING:
    from segrl.policies import Completion, Policy
    from segrl.text_to_masks import TextToMasks


logger = logging.getLogger(__name__)

ImageLike = Image.Image | Path | str | bytes | np.ndarray
BatchSize = int | Literal["auto"]
Opened = tuple[Image.Image | SegrlError, str]
"""An image, or why it could not be read, and the query about it."""

EMPTY_QUERY = DataError("the query is empty: say what to find")

OPEN_PIXELS = 2**27
"""Limit on the pixels of all images of a batch (400 MB)."""


MOST_TOGETHER = 32
"""Samples of one question that are generated together at most, fewer once the device has run out of memory."""


class Batch:
    """A batch of `size` pairs, fewer once the device has run out of memory."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise SegrlError(f"a batch has at least one image and query, not {size}: give a number above 0, or auto")
        self.size = size

    def took(self, pairs: int, seconds: float) -> None:
        """Records the time of a batch."""

    def shrink(self, failed: int) -> None:
        """Called when a batch of `failed` pairs did not fit."""
        self.size = max(1, failed // 2)


class AutoBatch(Batch):
    """Doubles the size while throughput grows by a factor of at least `GAIN`.

    It begins with one pair, and does not grow any more after running out of memory. The batch size can change the
    last bit of a sum, and so, rarely, a word of an answer.
    """

    LARGEST, GAIN = 64, 1.15

    def __init__(self) -> None:
        super().__init__(1)
        self._rate, self._grows = 0.0, True

    def took(self, pairs: int, seconds: float) -> None:
        """See Batch. A batch that was not full is ignored."""
        if not self._grows or pairs < self.size:
            return
        rate = pairs / max(seconds, 1e-9)
        if rate < self.GAIN * self._rate:
            self._grows, self.size = False, max(1, self.size // 2)
        else:
            self._rate, self.size = rate, min(2 * self.size, self.LARGEST)
            self._grows = self.size > pairs

    def shrink(self, failed: int) -> None:
        super().shrink(failed)
        self._grows = False


def opened(pairs: Iterable[tuple[ImageLike, str]], pictures: PictureOptions = AS_IT_IS) -> Iterator[Opened]:
    """The pairs with their images read; a path that stands several times in a row is read once."""
    last: Path | str | None = None
    for source, query in pairs:
        if last is None or not isinstance(source, Path | str) or source != last:
            image = _read(source, pictures)
            last = source if isinstance(source, Path | str) else None
        yield (image if query.strip() else EMPTY_QUERY), query


def checked_query(query: str) -> str:
    """The query. Raises DataError for an empty one."""
    if not query.strip():
        raise EMPTY_QUERY
    return query


def _read(source: ImageLike, pictures: PictureOptions) -> Image.Image | SegrlError:
    try:
        return as_image(source, pictures)
    except SegrlError as error:
        return error


def windows(pairs: Iterator[Opened], batch: Batch) -> Iterator[list[Opened]]:
    """The pairs in lists of `batch.size`, which may change from one to the next, and of at most OPEN_PIXELS."""
    for first in pairs:
        window, pixels = [first], _pixels(first)
        while len(window) < batch.size and pixels < OPEN_PIXELS and (more := next(pairs, None)):
            window.append(more)
            pixels += _pixels(more)
        yield window


def _pixels(pair: Opened) -> int:
    image = pair[0]
    return 0 if isinstance(image, SegrlError) else image.width * image.height


__all__ = ["ImageLike", "Pipeline", "Stream"]

Pair = tuple[Image.Image, str]


class Pipeline:
    """Images and queries in, masks out. text_to_masks: any that reads this policy's texts (`make_text_to_masks`).

    An image is a path, the bytes of an image file, a PIL image, or an array `(H, W)` or `(H, W, 3)` of
    uint8 in RGB order; URLs are never opened. decoding: how answers are generated, unless a call says otherwise;
    greedy by default, so that the same call gives the same result.
    """

    def __init__(
        self,
        policy: Policy,
        text_to_masks: TextToMasks,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        decoding: Decoding = PLAINLY,
    ) -> None:
        self.policy, self.text_to_masks, self.max_new_tokens = policy, text_to_masks, max_new_tokens
        self.decoding = decoding
        self._auto, self._samples_together = AutoBatch(), MOST_TOGETHER

    def segment(
        self, image: ImageLike, query: str, *, turns: int | None = None, decoding: Decoding | None = None
    ) -> Result:
        """The answer to one query about one image. Raises DataError for an image that cannot be read.

        turns: at most so many answers of the policy; after each it is shown its mask (`segrl.turns`), and
        `result.turns` has the state after each. decoding: in place of the pipeline's own.
        """
        return next(self.segment_many([(image, query)], turns=turns, decoding=decoding))

    def segment_many(
        self,
        pairs: Iterable[tuple[ImageLike, str]],
        *,
        batch_size: BatchSize = 1,
        turns: int | None = None,
        decoding: Decoding | None = None,
    ) -> Iterator[Result]:
        """A result for each (image, query), lazily and in order, `batch_size` pairs at a time.

        turns: as in `segment`. "auto" searches for the fastest batch size that fits (`AutoBatch`). Raises the errors
        that `try_many` yields.
        """
        for result in self.try_many(pairs, batch_size=batch_size, turns=turns, decoding=decoding):
            if isinstance(result, SegrlError):
                raise result
            yield result

    def try_many(
        self,
        pairs: Iterable[tuple[ImageLike, str]],
        *,
        batch_size: BatchSize = 1,
        pictures: PictureOptions = AS_IT_IS,
        turns: int | None = None,
        decoding: Decoding | None = None,
    ) -> Iterator[Result | SegrlError]:
        """As `segment_many`, but yields an error in place of the result of an image that cannot be used.

        pictures: options of the image reader, for instance which page.

        DataError: the image cannot be read. ModelError: a batch of this image alone does not fit in the device's
        memory. Raises a ServerError that concerns every image: no connection, or a refused key.
        """
        chosen = decoding or self.decoding
        chosen = chosen if turns is None else replace(chosen, turns=turns)
        check_turns(self.policy, chosen.turns)
        batch = self._auto if batch_size == "auto" else Batch(batch_size)
        for window in windows(opened(pairs, pictures), batch):
            usable = [(image, query) for image, query in window if isinstance(image, Image.Image)]
            results = iter(self._try(usable, batch, chosen))
            yield from (image if isinstance(image, SegrlError) else next(results) for image, _ in window)

    def stream(self, image: ImageLike, query: str, *, decoding: Decoding | None = None) -> Stream:
        """As `segment`, with the text while it is generated; with a vote or a second look, at the end."""
        return Stream(self, as_image(image), checked_query(query), decoding or self.decoding)

    def masks(self, image: ImageLike, prompts: Sequence[MaskPrompt], query: str = "") -> Result:
        """The masks of given boxes and points, without the policy.

        prompts: in original pixels (also those without a frame); they are clipped to the image, and a box outside
        it makes the status BAD_VALUES. No prompts give no masks. A segmenter of the SAM family encodes an image
        once: while it is in the cache, further calls only decode.
        """
        opened_image = as_image(image)
        in_pixels = _in_pixels(prompts)
        given = Answer(Status.OK if in_pixels else Status.NO_TARGET, in_pixels)
        return Result.of(opened_image, query, "", self.text_to_masks.masks([given], [opened_image])[0])

    def _try(self, pairs: Sequence[Pair], batch: Batch, decoding: Decoding) -> list[Result | SegrlError]:
        """Results in order. A batch that fails or does not fit is halved until the failing pair is alone."""
        import torch

        if not pairs:
            return []
        begun = time.perf_counter()
        try:
            results = self._answer(pairs, decoding)
            batch.took(len(pairs), time.perf_counter() - begun)
            return [*results]
        except SegrlError as error:
            if isinstance(error, ServerError) and not error.is_about_the_request:
                raise
            if len(pairs) == 1:
                return [error]
        except torch.OutOfMemoryError:
            if len(pairs) == 1 and (decoding.samples == 1 or self._samples_together == 1):
                return [_does_not_fit(pairs[0][0])]
            if len(pairs) == 1:
                self._samples_together = max(1, min(decoding.samples, self._samples_together) // 2)
                return self._try(pairs, batch, decoding)
            batch.shrink(len(pairs))
        half = len(pairs) // 2
        return self._try(pairs[:half], batch, decoding) + self._try(pairs[half:], batch, decoding)

    def _answer(self, pairs: Sequence[Pair], decoding: Decoding) -> list[Result]:
        images, together = [image for image, _ in pairs], min(decoding.samples, self._samples_together)
        fitted = replace(
            decoding,
            batch_size=len(pairs) * together,
            max_new_tokens=decoding.max_new_tokens or self.max_new_tokens,
        )
        ids = [content_id(image) for image in images]
        replies = answer(self.policy, self.text_to_masks, images, [query for _, query in pairs], ids, fitted)
        return [
            Result.of_turns(Conversation(image, query, one.turns))
            if one.turns
            else Result.of(image, query, one.completion.text, one.segmentation, one.samples)
            for (image, query), one in zip(pairs, replies, strict=True)
        ]

    def go_on(
        self,
        image: ImageLike,
        query: str,
        said: Sequence[str | Sequence[MaskPrompt]],
        *,
        decoding: Decoding | None = None,
    ) -> Result:
        """One further turn after those in `said`, as `segment(turns=…)` would take it; none after "done".

        said: the texts of the policy, and in place of some what a person drew instead, as mask prompts in original
        pixels: the policy is then shown their mask, and reads them in its own answer format; where that cannot say
        them, a warning says why, and it reads an empty answer. decoding: temperature, seed and longest answer, in
        place of the pipeline's own. Raises SegrlError for a policy that takes single requests only, and for masks of
        all turns beyond `max_mask_pixels`.
        """
        view, picture, how = view_of(self.policy), as_image(image), decoding or self.decoding
        conversation = Conversation(picture, checked_query(query))
        for one in said:
            if isinstance(one, str):
                (conversation,) = take(self.text_to_masks, [conversation], [one], continues=view.continues)
            else:
                drawn = Answer(Status.OK if one else Status.NO_TARGET, _in_pixels(one))
                (stands,) = self.text_to_masks.masks([drawn], [picture])
                if stands.answer.status.is_failure:
                    raise SegrlError(f"what was drawn gives no mask: {stands.answer.detail}")
                conversation = person(conversation, stands, self._in_its_words(stands.answer, picture.size))
            if conversation.n_mask_pixels > (self.text_to_masks.max_mask_pixels or float("inf")):
                raise SegrlError("these turns together hold more masks than are made at once: ask about fewer objects")
        (conversation,) = talk(
            self.policy,
            self.text_to_masks,
            [conversation],
            turns=len(conversation.turns) + 1,
            view=view,
            max_new_tokens=how.max_new_tokens or self.max_new_tokens,
            temperature=how.heat,
            seed=how.seed,
        )
        return Result.of_turns(conversation)

    def _in_its_words(self, drawn: Answer, image_wh: tuple[int, int]) -> str:
        """What a person drew as the policy would have written it; empty where its format cannot say it."""
        frame = self.text_to_masks.frame_for(image_wh)
        try:
            return self.text_to_masks.answer_format.written(drawn.prompts, frame, image_wh)
        except ValueError as error:
            logger.warning("the policy is shown what was drawn, but reads no answer that says it: %s", error)
            return ""

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
    """An answer while it is generated: an iterator over pieces of the policy's text, and `result` at its end.

    stream = model.stream("photo.jpg", "the cup")
    for piece in stream: print(piece, end="")
    stream.result.masks

    text: the text so far. `close` (or deleting the stream) stops the generation.
    """

    def __init__(self, pipeline: Pipeline, image: Image.Image, query: str, decoding: Decoding) -> None:
        self._pipeline, self._pair, self._decoding, self.text = pipeline, (image, query), decoding, ""
        self._result: Result | None = None
        self._pieces = self._run()

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def result(self) -> Result:
        """The result, after the rest of the text. Raises SegrlError for a stream that was closed early."""
        for _ in self:
            pass
        if self._result is None:
            raise SegrlError("this answer was stopped before its end and has no result")
        return self._result

    def close(self) -> None:
        """Stops the generation."""
        self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        pipeline, (image, query) = self._pipeline, self._pair
        if not self._decoding.is_plain:
            self._result = pipeline.segment(image, query, decoding=self._decoding)
            self.text = self._result.text
            yield self.text
            return
        prompt = pipeline.text_to_masks.answer_format.prompt(query)
        pieces = policies.stream(
            pipeline.policy, image, prompt, max_new_tokens=self._decoding.max_new_tokens or pipeline.max_new_tokens
        )
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


def _in_pixels(prompts: Sequence[MaskPrompt]) -> tuple[MaskPrompt, ...]:
    return tuple(replace(p, frame=ORIGINAL) if p.frame.kind is FrameKind.UNKNOWN else p for p in prompts)


def _does_not_fit(image: Image.Image) -> ImageTooLarge:
    return ImageTooLarge(
        image,
        f"an image of {image.width}×{image.height} alone does not fit in the device's memory: "
        "make it smaller, or give the policy an input_wh",
    )
