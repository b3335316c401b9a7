"""Segmenters that take words: a phrase, with example boxes or without → every instance. SAM 3 through transformers.

An image is encoded once and any number of phrases decoded from that; the text of a phrase is encoded once as well.
Masks and scores are those of the plain path (processor, model, `post_process_instance_segmentation`). A box of a
mask prompt goes to the model as an example of what is meant, and of the instances that it finds the one counts that
fits box and points best.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segrl.coordinates import box_iou
from segrl.errors import ModelError
from segrl.masks import mask_to_box
from segrl.recent import Recent
from segrl.segmenters.cache import MemoryCache, Store
from segrl.segmenters.encoding import Encoder, Job
from segrl.segmenters.protocol import ALL_PROMPTS, Embedding, Instances, WordSegmenter, check_frames
from segrl.types import MaskPrompt

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CONCEPT_MODELS = {"sam3": "Sam3Model", "sam3_video": "Sam3Model", "sam3_lite_text": "Sam3LiteTextModel"}
"""Class in transformers by the `model_type` of the checkpoint's configuration; the hub's SAM 3 is a sam3_video."""

DECODE_BATCH = {"cpu": 1, "cuda": 8}
"""Phrases decoded at once, by kind of device."""
PHRASE_TOKENS = 32
"""Tokens of a phrase that SAM 3 reads; its processor pads to them."""
VISUAL = "visual"
"""What SAM 3's processor says where there are examples and no words."""
TEXTS_KEPT = 1024


class ConceptSegmenter(Encoder):
    """A frozen SAM 3 that is asked with words.

    score_threshold: instances that the model is less sure of are left out. mask_threshold: probability above which a
    pixel belongs to an instance. decode_batch: phrases decoded at once (default: by kind of device). The rest as in
    `Encoder`. Points alone ask for nothing here; the tracker of the same checkpoint takes them.
    """

    takes = ALL_PROMPTS

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        score_threshold: float = 0.3,
        mask_threshold: float = 0.5,
        encode_batch: int | None = None,
        decode_batch: int | None = None,
        cache: MemoryCache | None = None,
        disk: Store | None = None,
    ) -> None:
        super().__init__(
            model,
            processor,
            decode_batch=decode_batch or DECODE_BATCH.get(model.device.type, 1),
            encode_batch=encode_batch,
            cache=cache,
            disk=disk,
        )
        self.score_threshold, self.mask_threshold = score_threshold, mask_threshold
        self._texts = Recent[tuple[Any, Any]](TEXTS_KEPT)

    def _features(self, pixel_values: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The levels that the decoder reads, finest first; it passes over the last."""
        levels = self.model.get_vision_features(pixel_values).fpn_hidden_states[:-1]
        return {f"level_{i}": level for i, level in enumerate(levels)}

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """See `Segmenter.decode`: of a phrase all instances as one mask."""
        return every_one(self, embeddings, prompts)

    def decode_instances(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[list[Instances]]:
        """See `WordSegmenter.decode_instances`; the masks are on the segmenter's device."""
        check_frames(prompt for image_prompts in prompts for prompt in image_prompts)
        return self._decode_alike(embeddings, prompts, lambda prompt: len(prompt.boxes), self._decode_batch)

    def _decode_batch(self, embeddings: Sequence[Embedding], jobs: Sequence[Job]) -> list[Instances]:
        import torch

        sizes = [embeddings[job.image].image_hw for job in jobs]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            texts = [self._text(_words(job.prompt)) for job in jobs]
            output = self.model(
                vision_embeds=self._vision(self._of_embeddings(embeddings, [job.image for job in jobs])),
                text_embeds=_Pooled(torch.cat([features for features, _ in texts])),
                attention_mask=torch.cat([mask for _, mask in texts]),
                **self._boxes(jobs, sizes),
            )
        self.decoder_calls += 1
        results = self.processor.post_process_instance_segmentation(
            output, self.score_threshold, self.mask_threshold, target_sizes=sizes
        )
        return [self._instances(found, job.prompt, hw) for found, job, hw in zip(results, jobs, sizes, strict=True)]

    def _instances(self, found: Mapping[str, torch.Tensor], prompt: MaskPrompt, hw: tuple[int, int]) -> Instances:
        import torch

        order = found["scores"].argsort(descending=True)
        if len(order) == 0:
            nothing = Instances(torch.zeros((0, *hw), dtype=torch.bool, device=self.device), found["scores"].float())
            return the_one(nothing, prompt)
        masks, scores = found["masks"].bool()[order], found["scores"].float()[order]
        is_there = masks.any(dim=(1, 2))
        return the_one(Instances(masks[is_there], scores[is_there]), prompt)

    def _text(self, words: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoded phrase `(1, t, d)` and its attention mask `(1, t)`."""
        if (known := self._texts.get(words)) is not None:
            return known
        tokens = self.processor.tokenizer(
            [words], return_tensors="pt", padding="max_length", max_length=PHRASE_TOKENS, truncation=True
        ).to(self.device)
        if len(self.processor.tokenizer(words)["input_ids"]) > PHRASE_TOKENS:
            logger.warning("SAM 3 reads the first %d tokens of a phrase; longer: %r", PHRASE_TOKENS, words)
        features = self.model.get_text_features(**tokens, return_dict=True).pooler_output
        self._texts.put(words, (features, tokens["attention_mask"]))
        return features, tokens["attention_mask"]

    def _vision(self, features: Mapping[str, torch.Tensor]) -> Any:
        """The embeddings as the model takes them, with the positions that it puts beside them."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        levels = [features[name] for name in sorted(features)]
        encode = self.model.vision_encoder.neck.position_encoding
        positions = [encode(level.shape, level.device, level.dtype) for level in levels]
        return Sam3VisionEncoderOutput(  # the model passes over the last of each
            fpn_hidden_states=(*levels, levels[-1]), fpn_position_encoding=(*positions, positions[-1])
        )

    def _boxes(self, jobs: Sequence[Job], sizes: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """Example boxes `(n, b, 4)` and their labels `(n, b)`; nothing where the jobs have none."""
        if len(jobs[0].prompt.boxes) == 0:
            return {}
        encoded = self.processor(
            text=[_words(job.prompt) for job in jobs],
            input_boxes=[[list(box) for box in job.prompt.boxes] for job in jobs],
            input_boxes_labels=[
                [1] * (job.prompt.box_xyxy is not None) + list(job.prompt.exemplar_labels) for job in jobs
            ],
            original_sizes=[list(hw) for hw in sizes],
            return_tensors="pt",
        )
        return {
            "input_boxes": encoded["input_boxes"].to(self.device, self.dtype),
            "input_boxes_labels": encoded["input_boxes_labels"].to(self.device),
        }


@dataclass(frozen=True)
class _Pooled:
    """An encoded text as the model takes it."""

    pooler_output: torch.Tensor


def _words(prompt: MaskPrompt) -> str:
    """Raises ModelError for points alone."""
    if not prompt.phrase and not prompt.boxes:
        raise ModelError(
            "SAM 3 asked with words takes points only beside a phrase or a box: for points alone use its tracker "
            "(the checkpoint's name without concept:)"
        )
    return prompt.phrase or VISUAL


def every_one(
    segmenter: WordSegmenter, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
) -> list[torch.Tensor]:
    """`Segmenter.decode` of a segmenter that takes words: all instances of a prompt in one mask."""
    import torch

    found = segmenter.decode_instances(embeddings, prompts)
    return [
        torch.stack([one.masks.any(dim=0) for one in many])
        if many
        else torch.zeros((0, *embedding.image_hw), dtype=torch.bool)
        for many, embedding in zip(found, embeddings, strict=True)
    ]


def the_one(found: Instances, prompt: MaskPrompt) -> Instances:
    """Of the instances the one that fits box and points best, an empty mask if none does; all without box and points.

    More foreground points less background points on it come first, then the overlap of its box with the prompt's.
    One that shares nothing with the box, or holds none of the foreground points, does not fit.
    """
    import torch

    if not prompt.marks_one:
        return found
    fits = [_fit(mask, prompt) for mask in found.masks]
    fitting = [i for i, fit in enumerate(fits) if fit is not None]
    if not fitting:
        empty = torch.zeros((1, *found.masks.shape[1:]), dtype=torch.bool, device=found.masks.device)
        return Instances(empty, found.scores.new_zeros(1))
    best = max(fitting, key=lambda i: fits[i] or _WORST)
    return Instances(found.masks[[best]], found.scores[[best]])


_WORST = (-float("inf"), 0.0)


def _fit(mask: torch.Tensor, prompt: MaskPrompt) -> tuple[float, float] | None:
    """How well a mask fits; None where it does not."""
    on = [
        label if bool(mask[int(y), int(x)]) else None
        for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True)
    ]
    if 1 in prompt.labels and 1 not in on:
        return None
    points, box = float(on.count(1) - on.count(0)), mask_to_box(mask.cpu().numpy())
    if prompt.box_xyxy is None:
        return points, 1.0
    overlap = 0.0 if box is None else box_iou(box, prompt.box_xyxy)
    return (points, overlap) if overlap > 0 else None
