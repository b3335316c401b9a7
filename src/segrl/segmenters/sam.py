"""The SAM family through transformers: encode each image once, decode any number of prompts from that.

Masks equal those of the plain path (processor, model, `post_process_masks`; one image and one prompt
at a time). Prompts of equal shape are decoded together and never padded: padding adds tokens that
attention sees.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from segrl.errors import ModelError
from segrl.images import content_id
from segrl.segmenters.cache import MemoryCache, Store
from segrl.segmenters.checkpoint import Checkpoint
from segrl.segmenters.protocol import Decoded, Embedding, ImageTooLarge, LowResolution, check_frames
from segrl.types import MaskPrompt

if TYPE_CHECKING:
    import torch
    from PIL import Image


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


ENCODE_BATCH = {"cpu": 1, "cuda": 4}
"""Images encoded at once, by kind of device."""
DECODE_BATCH = {"cpu": 2, "cuda": 64}
"""Prompts decoded at once, by kind of device."""
UPSCALE_PIXELS = 2**26
"""Mask pixels brought to the original size at once (in float32, before the threshold)."""


@dataclass(frozen=True)
class _Job:
    """One prompt of the batch: which image, which of its rows."""

    image: int
    row: int
    prompt: MaskPrompt

    @property
    def shape(self) -> tuple[Any, ...]:
        """Prompts of equal shape can be decoded together."""
        prior = self.prompt.prior_logits
        return (
            self.prompt.box_xyxy is not None,
            len(self.prompt.points_xy),
            None if prior is None else tuple(prior.shape),
        )


class SamSegmenter:
    """A promptable segmenter of the SAM family, frozen.

    multimask: take the mask with the highest predicted IoU of the decoder's three, instead of its
    single mask. mask_threshold: logits above it are object. cache, disk: where embeddings are kept
    (None: nowhere). encoder_calls, decoder_calls: how often each network ran.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        multimask: bool = False,
        mask_threshold: float = 0.0,
        encode_batch: int | None = None,
        decode_batch: int | None = None,
        cache: MemoryCache | None = None,
        disk: Store | None = None,
    ) -> None:
        self.model = checkpoint.model
        self.processor = checkpoint.processor
        self.family = checkpoint.family
        self.multimask = multimask
        self.mask_threshold = mask_threshold
        kind = self.device.type
        self.encoding = Batcher(encode_batch or ENCODE_BATCH.get(kind, 1), "encoding images")
        self.decoding = Batcher(decode_batch or DECODE_BATCH.get(kind, 1), "decoding prompts")
        self.stores: list[Store] = [store for store in (cache, disk) if store is not None]
        self.encoder_calls = self.decoder_calls = 0

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype

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

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`; the masks are on the segmenter's device."""
        return [masks for masks, _ in self.decode_scored(embeddings, prompts)]

    def decode_scored(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """See `ScoringSegmenter.decode_scored`: masks with the IoU that the decoder predicts."""
        low = self.decode_logits(embeddings, prompts)
        return [
            (self._upscale(answer.logits, embedding.image_hw), answer.scores)
            for answer, embedding in zip(low, embeddings, strict=True)
        ]

    def decode_turn(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[Decoded]:
        """See `ContinuingSegmenter.decode_turn`; earlier logits go to the decoder as its mask input."""
        low = self.decode_logits(embeddings, prompts)
        return [
            Decoded(self._upscale(answer.logits, embedding.image_hw), answer.scores, answer.logits)
            for answer, embedding in zip(low, embeddings, strict=True)
        ]

    def decode_logits(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[LowResolution]:
        """The logits behind `decode`, in the decoder's low resolution: what a later turn gives as `prior_logits`."""
        check_frames(prompt for image_prompts in prompts for prompt in image_prompts)
        jobs = [_Job(i, row, prompt) for i, many in enumerate(prompts) for row, prompt in enumerate(many)]
        groups: dict[tuple[Any, ...], list[_Job]] = {}
        for job in jobs:
            groups.setdefault(job.shape, []).append(job)
        answers: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        for group in groups.values():
            decoded = self.decoding.run(
                lambda batch: self._decode_batch(embeddings, batch),
                group,
                lambda job: ModelError(self._does_not_fit(embeddings[job.image].image_hw, "a prompt on an image")),
            )
            answers.update(((job.image, job.row), answer) for job, answer in zip(group, decoded, strict=True))
        return [self._stack([answers[i, row] for row in range(len(many))]) for i, many in enumerate(prompts)]

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
            features = self.family.features(self.model, pixels.to(self.device, self.dtype))
        self.encoder_calls += 1
        return [
            Embedding((image.height, image.width), {name: tensor[i].clone() for name, tensor in features.items()})
            for i, image in enumerate(images)
        ]

    def _decode_batch(
        self, embeddings: Sequence[Embedding], jobs: Sequence[_Job]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Logits `(h, w)` and predicted IoU `()` of each job; all jobs have one shape."""
        import torch

        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            output = self.model(
                **self.family.decoder_arguments(self._features(embeddings, jobs)),
                **self._prompt_arguments(embeddings, jobs),
                multimask_output=self.multimask,
            )
        self.decoder_calls += 1
        logits, scores = output.pred_masks[:, 0].float(), output.iou_scores[:, 0].float()
        best = scores.argmax(dim=1)
        return [(logits[i, k], scores[i, k]) for i, k in enumerate(best.tolist())]

    def _features(self, embeddings: Sequence[Embedding], jobs: Sequence[_Job]) -> dict[str, torch.Tensor]:
        """The embeddings that the jobs ask about, each tensor with the jobs first; each brought to the device once."""
        import torch

        images = [job.image for job in jobs]
        first = embeddings[images[0]].tensors
        different = list(dict.fromkeys(images))
        if len(different) == 1:
            return {
                name: tensor.to(self.device, self.dtype).expand(len(jobs), *tensor.shape)
                for name, tensor in first.items()
            }
        rows = torch.tensor([different.index(i) for i in images], device=self.device)
        return {
            name: torch.stack([embeddings[i].tensors[name].to(self.device, self.dtype) for i in different])[rows]
            for name in first
        }

    def _prompt_arguments(self, embeddings: Sequence[Embedding], jobs: Sequence[_Job]) -> dict[str, Any]:
        """Boxes `(n, 1, 4)`, points `(n, 1, p, 2)`, labels `(n, 1, p)`, earlier logits `(n, 1, h, w)`, where asked."""
        import torch

        scales = torch.tensor([self._scale_xy(embeddings[job.image].image_hw) for job in jobs])
        prompts = [job.prompt for job in jobs]
        arguments: dict[str, Any] = {}
        if prompts[0].box_xyxy is not None:
            boxes = torch.tensor([prompt.box_xyxy for prompt in prompts])
            arguments["input_boxes"] = (boxes * scales.repeat(1, 2))[:, None].to(self.device)
        if prompts[0].points_xy:
            points = torch.tensor([prompt.points_xy for prompt in prompts])
            arguments["input_points"] = (points * scales[:, None])[:, None].to(self.device)
            labels = torch.tensor([prompt.labels for prompt in prompts])
            arguments["input_labels"] = labels[:, None].to(self.device)
        if prompts[0].prior_logits is not None:
            priors = [prompt.prior_logits for prompt in prompts if prompt.prior_logits is not None]
            arguments["input_masks"] = torch.stack(priors)[:, None].to(self.device, self.dtype)
        return arguments

    def _scale_xy(self, image_hw: tuple[int, int]) -> tuple[float, float]:
        width, height = self.family.input_wh(self.processor, image_hw)
        return width / image_hw[1], height / image_hw[0]

    def _stack(self, answers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> LowResolution:
        import torch

        if not answers:
            return LowResolution(torch.zeros((0, 1, 1), device=self.device), torch.zeros(0, device=self.device))
        return LowResolution(torch.stack([a[0] for a in answers]), torch.stack([a[1] for a in answers]))

    def _upscale(self, logits: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
        """Low-resolution logits `(n, h, w)` → bool `(n, H, W)`, a bounded number of pixels at a time."""
        import torch

        step = max(1, UPSCALE_PIXELS // (image_hw[0] * image_hw[1]))
        parts = [
            self.family.upscale(self.processor, part[:, None], image_hw, self.mask_threshold)[:, 0]
            for part in logits.split(step)
            if len(part)
        ]
        return torch.cat(parts) if parts else torch.zeros((0, *image_hw), dtype=torch.bool, device=self.device)

    def _does_not_fit(self, image_hw: tuple[int, int], what: str) -> str:
        return (
            f"{what} of {image_hw[1]}×{image_hw[0]} does not fit in the memory of {self.device}: use a smaller "
            "segmenter, half precision (segmenter.dtype=bfloat16) or another device (segmenter.device=…)"
        )
