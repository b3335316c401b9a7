"""The SAM family through transformers: encode each image once, decode any number of prompts from that.

Masks equal those of the plain path (processor, model, `post_process_masks`; one image and one prompt
at a time). Prompts of equal shape are decoded together and never padded: padding adds tokens that
attention sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segrl.segmenters.cache import MemoryCache, Store
from segrl.segmenters.checkpoint import Checkpoint
from segrl.segmenters.encoding import Encoder, Job
from segrl.segmenters.protocol import Decoded, Embedding, LowResolution, check_frames
from segrl.types import MaskPrompt

if TYPE_CHECKING:
    import torch


DECODE_BATCH = {"cpu": 2, "cuda": 64}
"""Prompts decoded at once, by kind of device."""
UPSCALE_PIXELS = 2**26
"""Mask pixels brought to the original size at once (in float32, before the threshold)."""


def _shape(prompt: MaskPrompt) -> tuple[Any, ...]:
    """Prompts of equal shape can be decoded together."""
    prior = prompt.prior_logits
    return prompt.box_xyxy is not None, len(prompt.points_xy), None if prior is None else tuple(prior.shape)


class SamSegmenter(Encoder):
    """A promptable segmenter of the SAM family, frozen.

    multimask: take the mask with the highest predicted IoU of the decoder's three, instead of its
    single mask. mask_threshold: logits above it are object. The rest as in `Encoder`.
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
        super().__init__(
            checkpoint.model,
            checkpoint.processor,
            decode_batch=decode_batch or DECODE_BATCH.get(checkpoint.model.device.type, 1),
            encode_batch=encode_batch,
            cache=cache,
            disk=disk,
        )
        self.family = checkpoint.family
        self.multimask = multimask
        self.mask_threshold = mask_threshold

    def _features(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return self.family.features(self.model, pixel_values)

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
        answers = self._decode_alike(embeddings, prompts, _shape, self._decode_batch)
        return [self._stack(own) for own in answers]

    def _decode_batch(
        self, embeddings: Sequence[Embedding], jobs: Sequence[Job]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Logits `(h, w)` and predicted IoU `()` of each job; all jobs have one shape."""
        import torch

        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            output = self.model(
                **self.family.decoder_arguments(self._of_embeddings(embeddings, [job.image for job in jobs])),
                **self._prompt_arguments(embeddings, jobs),
                multimask_output=self.multimask,
            )
        self.decoder_calls += 1
        logits, scores = output.pred_masks[:, 0].float(), output.iou_scores[:, 0].float()
        best = scores.argmax(dim=1)
        return [(logits[i, k], scores[i, k]) for i, k in enumerate(best.tolist())]

    def _prompt_arguments(self, embeddings: Sequence[Embedding], jobs: Sequence[Job]) -> dict[str, Any]:
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
