"""Images encoded once, whoever asks: what the segmenters with a checkpoint of transformers have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from segrl.errors import ModelError
from segrl.images import content_id
from segrl.segmenters.cache import MemoryCache, Store
from segrl.segmenters.protocol import Embedding, ImageTooLarge

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from segrl.types import MaskPrompt

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher:
    """Runs work in batches of at most `size` items, fewer once the device has run out of memory.

    what: names the work in the message.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size = size
        self.what = what

    def run(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        items: Sequence[Item],
        too_large: Callable[[Item], Exception],
    ) -> list[Result]:
        """`work` on consecutive batches of `items`, results in order.

        `too_large(item)` is raised where a single item does not fit.
        """
        import torch

        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            try:
                results.extend(work(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise too_large(batch[0]) from error
                self._shrink(len(batch))
        return results

    def _shrink(self, failed: int) -> None:
        import torch

        self.size = max(1, failed // 2)
        logger.warning("out of memory: %s in batches of %d from now on, not %d", self.what, self.size, failed)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Job:
    """One prompt of a batch: which image, which of its rows."""

    image: int
    row: int
    prompt: MaskPrompt


ENCODE_BATCH = {"cpu": 1, "cuda": 4}
"""Images encoded at once, by kind of device."""


class Encoder(ABC):
    """A frozen model and its processor, with the embeddings that it made.

    decode_batch: prompts decoded at once. encode_batch: images encoded at once (default: by kind of device).
    cache, disk: where embeddings are kept (None: nowhere). encoder_calls, decoder_calls: how often each network ran.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        decode_batch: int,
        encode_batch: int | None = None,
        cache: MemoryCache | None = None,
        disk: Store | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.encoding = Batcher(encode_batch or ENCODE_BATCH.get(self.device.type, 1), "encoding images")
        self.decoding = Batcher(decode_batch, "decoding prompts")
        self.stores: list[Store] = [store for store in (cache, disk) if store is not None]
        self.encoder_calls = self.decoder_calls = 0

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @abstractmethod
    def _features(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What the decoder needs of `(B, 3, h, w)` images, each tensor with B first."""

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """See `Segmenter.encode`. Equal images are encoded once, those in the cache not at all.

        Raises ImageTooLarge.
        """
        if not self.stores and len(images) == 1:
            return self._encode_new(images)
        keys = [content_id(image) for image in images]
        found = {key: embedding for key in dict.fromkeys(keys) if (embedding := self._recall(key)) is not None}
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        for key, embedding in zip(new, self._encode_new(list(new.values())), strict=True):
            found[key] = embedding
            for store in self.stores:
                store.put(key, embedding)
        return [found[key] for key in keys]

    def _recall(self, key: str) -> Embedding | None:
        """The embedding of `key` from the first store that has it; the stores before it get it back."""
        for depth, store in enumerate(self.stores):
            if (embedding := store.get(key)) is not None:
                for faster in self.stores[:depth]:
                    faster.put(key, embedding)
                return embedding
        return None

    def _encode_new(self, images: Sequence[Image.Image]) -> list[Embedding]:
        def too_large(image: Image.Image) -> Exception:
            return ImageTooLarge(image, self._does_not_fit((image.height, image.width), "an image"))

        return self.encoding.run(self._encode_batch, images, too_large)

    def _encode_batch(self, images: Sequence[Image.Image]) -> list[Embedding]:
        import torch

        rgb = [image.convert("RGB") for image in images]
        pixels = self.processor.image_processor(images=rgb, return_tensors="pt")["pixel_values"]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features = self._features(pixels.to(self.device, self.dtype))
        self.encoder_calls += 1
        return [
            Embedding((image.height, image.width), {name: tensor[i].clone() for name, tensor in features.items()})
            for i, image in enumerate(images)
        ]

    def _of_embeddings(self, embeddings: Sequence[Embedding], images: Sequence[int]) -> dict[str, torch.Tensor]:
        """The embeddings at `images`, each tensor with those first; each brought to the device once."""
        import torch

        first = embeddings[images[0]].tensors
        different = list(dict.fromkeys(images))
        if len(different) == 1:
            return {
                name: tensor.to(self.device, self.dtype).expand(len(images), *tensor.shape)
                for name, tensor in first.items()
            }
        rows = torch.tensor([different.index(i) for i in images], device=self.device)
        return {
            name: torch.stack([embeddings[i].tensors[name].to(self.device, self.dtype) for i in different])[rows]
            for name in first
        }

    def _decode_alike(
        self,
        embeddings: Sequence[Embedding],
        prompts: Sequence[Sequence[MaskPrompt]],
        shape: Callable[[MaskPrompt], Hashable],
        work: Callable[[Sequence[Embedding], Sequence[Job]], Sequence[Result]],
    ) -> list[list[Result]]:
        """`work` on batches of prompts of equal `shape`; a result for each prompt, in the order of images and rows."""
        jobs = [Job(i, row, prompt) for i, many in enumerate(prompts) for row, prompt in enumerate(many)]
        groups: dict[Hashable, list[Job]] = {}
        for job in jobs:
            groups.setdefault(shape(job.prompt), []).append(job)
        found: dict[tuple[int, int], Result] = {}
        for group in groups.values():
            decoded = self.decoding.run(
                lambda batch: work(embeddings, batch),
                group,
                lambda job: ModelError(self._does_not_fit(embeddings[job.image].image_hw, "a prompt on an image")),
            )
            found.update(((job.image, job.row), one) for job, one in zip(group, decoded, strict=True))
        return [[found[i, row] for row in range(len(many))] for i, many in enumerate(prompts)]

    def _does_not_fit(self, image_hw: tuple[int, int], what: str) -> str:
        return (
            f"{what} of {image_hw[1]}×{image_hw[0]} does not fit in the memory of {self.device}: use a smaller "
            "segmenter, half precision (segmenter.dtype=bfloat16) or another device (segmenter.device=…)"
        )
