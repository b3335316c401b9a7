"""Policy, answer format and segmenter as the one object that a user holds."""

from __future__ import annotations

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
from segrl.policies import MAX_NEW_TOKENS
from segrl.policies.turns import check_turns, talk, view_of
from segrl.result import Result
from segrl.segmenters.protocol import ImageTooLarge
from segrl.turns import Conversation, person, take
from segrl.types import ORIGINAL, Answer, FrameKind, MaskPrompt, Status

if TYPE_CHECKING:
    from segrl.policies import Completion, Policy
    from segrl.text_to_masks import TextToMasks


ImageLike = Image.Image | Path | str | bytes | np.ndarray
BatchSize = int | Literal["auto"]
Opened = tuple[Image.Image | SegrlError, str]
"""An image, or why it could not be read, and the query about it."""

EMPTY_QUERY = DataError("the query is empty: say what to find")

OPEN_PIXELS = 2**27
"""Pixels of the images that are open at once (400 MB), whatever the batch."""


class Batch:
    """A batch of `size` pairs, fewer once the device has run out of memory."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise SegrlError(f"a batch has at least one image and query, not {size}: give a number above 0, or auto")
        self.size = size

    def took(self, pairs: int, seconds: float) -> None:
        """Told how long a batch took."""

    def shrink(self, failed: int) -> None:
        """Told that a batch of `failed` pairs did not fit."""
        self.size = max(1, failed // 2)


class AutoBatch(Batch):
    """Doubles for as long as that answers at least `GAIN` times as many pairs a second.

    It begins with one pair, and never grows again once it has run out of memory. Another batch size
    can change the last bit of a sum, and so now and then a word of an answer.
    """

    LARGEST, GAIN = 64, 1.15

    def __init__(self) -> None:
        super().__init__(1)
        self._rate, self._grows = 0.0, True

    def took(self, pairs: int, seconds: float) -> None:
        """See Batch. A batch that was not full teaches nothing."""
        if not self._grows or pairs < self.size:
            return
        rate = pairs / max(seconds, 1e-9)
        if rate < self.GAIN * self._rate:
            self._grows, self.size = False, max(1, self.size // 2)
        else:
            self._rate, self.size = rate, min(2 * self.size, self.LARGEST)
            self._grows = self.size > pairs

    def shrink(self, failed: int) -> None:
        """See Batch."""
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
    uint8 in RGB order; addresses are never opened. Decoding is greedy, so the same call gives the same result.
    """

    def __init__(self, policy: Policy, text_to_masks: TextToMasks, *, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.policy, self.text_to_masks, self.max_new_tokens = policy, text_to_masks, max_new_tokens
        self._auto = AutoBatch()

    def segment(self, image: ImageLike, query: str, *, turns: int = 1) -> Result:
        """The answer to one query about one image. Raises DataError for an image that cannot be read.

        turns: how often the policy may answer at most; after each it is shown its mask (`segrl.turns`), and
        `result.turns` holds what stood after it.
        """
        return next(self.segment_many([(image, query)], turns=turns))

    def segment_many(
        self, pairs: Iterable[tuple[ImageLike, str]], *, batch_size: BatchSize = 1, turns: int = 1
    ) -> Iterator[Result]:
        """A result for each (image, query), in order; `batch_size` pairs are open and answered at a time.

        turns: as in `segment`. "auto" looks for the fastest batch that fits (`batching.AutoBatch`). Raises what
        `try_many` yields.
        """
        for result in self.try_many(pairs, batch_size=batch_size, turns=turns):
            if isinstance(result, SegrlError):
                raise result
            yield result

    def try_many(
        self,
        pairs: Iterable[tuple[ImageLike, str]],
        *,
        batch_size: BatchSize = 1,
        pictures: PictureOptions = AS_IT_IS,
        turns: int = 1,
    ) -> Iterator[Result | SegrlError]:
        """As `segment_many`, but an image that cannot be used gives its error in its place and stops nothing.

        pictures: what the reader of image files is told, for instance which page.

        DataError: it cannot be read. ModelError: alone it does not fit in the device's memory. Raised is
        a ServerError that no other image would escape: the server is gone, or refuses the key.
        """
        check_turns(self.policy, turns)
        batch = self._auto if batch_size == "auto" else Batch(batch_size)
        for window in windows(opened(pairs, pictures), batch):
            usable = [(image, query) for image, query in window if isinstance(image, Image.Image)]
            results = iter(self._try(usable, batch, turns))
            yield from (image if isinstance(image, SegrlError) else next(results) for image, _ in window)

    def stream(self, image: ImageLike, query: str) -> Stream:
        """The same answer as `segment` gives, told while it is written."""
        return Stream(self, as_image(image), checked_query(query))

    def masks(self, image: ImageLike, prompts: Sequence[MaskPrompt], query: str = "") -> Result:
        """The masks of boxes and points that somebody drew or edited, without asking the policy.

        prompts: in original pixels, or without a frame, which then is meant; they are cut to the image,
        and one whose box lies outside it makes the status BAD_VALUES. No prompts give no masks. A segmenter
        of the SAM family encodes an image once: while it stays in the cache, further calls only decode.
        """
        opened_image = as_image(image)
        in_pixels = _in_pixels(prompts)
        answer = Answer(Status.OK if in_pixels else Status.NO_TARGET, in_pixels)
        return Result.of(opened_image, query, "", self.text_to_masks.masks([answer], [opened_image])[0])

    def _try(self, pairs: Sequence[Pair], batch: Batch, turns: int) -> list[Result | SegrlError]:
        """Results in order. What fails or does not fit is halved until the one that cannot be used stands alone."""
        import torch

        if not pairs:
            return []
        begun = time.perf_counter()
        try:
            results = self._answer(pairs) if turns == 1 else self._talk(pairs, turns)
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
        return self._try(pairs[:half], batch, turns) + self._try(pairs[half:], batch, turns)

    def _answer(self, pairs: Sequence[Pair]) -> list[Result]:
        images = [image for image, _ in pairs]
        prompts = [self.text_to_masks.answer_format.prompt(query) for _, query in pairs]
        groups = self.policy.generate(images, prompts, max_new_tokens=self.max_new_tokens, batch_size=len(pairs))
        return self._read(pairs, [group[0] for group in groups])

    def _talk(self, pairs: Sequence[Pair], turns: int) -> list[Result]:
        conversations = talk(
            self.policy,
            self.text_to_masks,
            [Conversation(image, query) for image, query in pairs],
            turns=turns,
            view=view_of(self.policy),
            max_new_tokens=self.max_new_tokens,
            image_ids=[content_id(image) for image, _ in pairs],
            batch_size=len(pairs),
        )
        return [Result.of_turns(conversation) for conversation in conversations]

    def go_on(self, image: ImageLike, query: str, said: Sequence[str | Sequence[MaskPrompt]]) -> Result:
        """One further turn after those in `said`, as `segment(turns=…)` would take it.

        said: the texts of the policy, and in place of some what a person drew instead, as mask prompts in original
        pixels: the policy is then shown their mask. Raises SegrlError for a policy that takes single requests only.
        """
        view, picture = view_of(self.policy), as_image(image)
        conversation = Conversation(picture, checked_query(query))
        for one in said:
            if isinstance(one, str):
                (conversation,) = take(self.text_to_masks, [conversation], [one], continues=view.continues)
            else:
                answer = Answer(Status.OK if one else Status.NO_TARGET, _in_pixels(one))
                conversation = person(conversation, self.text_to_masks.masks([answer], [picture])[0])
        (conversation,) = talk(
            self.policy,
            self.text_to_masks,
            [conversation],
            turns=len(conversation.turns) + 1,
            view=view,
            max_new_tokens=self.max_new_tokens,
        )
        return Result.of_turns(conversation)

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


def _in_pixels(prompts: Sequence[MaskPrompt]) -> tuple[MaskPrompt, ...]:
    return tuple(replace(p, frame=ORIGINAL) if p.frame.kind is FrameKind.UNKNOWN else p for p in prompts)


def _does_not_fit(image: Image.Image) -> ImageTooLarge:
    return ImageTooLarge(
        image,
        f"an image of {image.width}×{image.height} alone does not fit in the device's memory: "
        "make it smaller, or give the policy an input_wh",
    )
