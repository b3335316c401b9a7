"""What a segmenter is, and answers → masks with it: an image is encoded once, each different prompt decoded once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from segrl.coordinates import to_original
from segrl.errors import FrameError, ModelError
from segrl.images import content_id
from segrl.masks import mask_to_box
from segrl.types import Answer, FrameKind, MaskPrompt, Segmentation, Status

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Embedding:
    """One encoded image: its original size and the tensors that the segmenter decodes from.

    The tensors are specific to the segmenter.
    """

    image_hw: tuple[int, int]
    tensors: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


BOXES_AND_POINTS = frozenset({"boxes", "points"})
ALL_PROMPTS = BOXES_AND_POINTS | {"words", "examples"}
"""What a mask prompt may hold, as `takes` names it."""


class Segmenter(Protocol):
    """A frozen promptable segmenter. One that takes more than boxes and points says so in an attribute `takes`."""

    def encode(self, images: Sequence[Image.Image]) -> list[Embedding]:
        """One embedding per image, in order; images may differ in size. Raises ImageTooLarge."""
        ...

    def decode(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[torch.Tensor]:
        """Masks of `prompts[i]` on `embeddings[i]`: bool `(n_i, H_i, W_i)` at the original size, one per prompt.

        An image without prompts gives `(0, H_i, W_i)`. A mask depends on its own image and prompt
        only, not on what else stands in the batch. Raises FrameError unless every prompt is in
        original pixels.
        """
        ...


@runtime_checkable
class ScoringSegmenter(Segmenter, Protocol):
    """A segmenter that predicts the quality of its masks."""

    def decode_scored(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """`decode` with the IoU that the segmenter predicts for each mask: float32 `(n_i,)`, about 0 to 1."""
        ...


@dataclass(frozen=True)
class Decoded:
    """What one decode gives for n prompts of one image.

    masks: bool `(n, H, W)`. scores: float32 `(n,)`, the predicted IoU; None from a segmenter that predicts none.
    logits: float32 `(n, h, w)`, the `prior_logits` of a later turn; None if they were not requested.
    """

    masks: torch.Tensor
    scores: torch.Tensor | None = None
    logits: torch.Tensor | None = None


@runtime_checkable
class ContinuingSegmenter(Segmenter, Protocol):
    """A segmenter that goes on from an earlier mask (`MaskPrompt.prior_logits`)."""

    def decode_turn(self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]) -> list[Decoded]:
        """`decode` with the logits that a later turn needs, in the one pass."""
        ...


@dataclass(frozen=True)
class Instances:
    """What one prompt found, surest first: masks `(k, H, W)` bool and the segmenter's confidence `(k,)` float32."""

    masks: torch.Tensor
    scores: torch.Tensor


@runtime_checkable
class WordSegmenter(Segmenter, Protocol):
    """A segmenter that finds every instance of a phrase."""

    takes: frozenset[str]

    def decode_instances(
        self, embeddings: Sequence[Embedding], prompts: Sequence[Sequence[MaskPrompt]]
    ) -> list[list[Instances]]:
        """Of each prompt the instances on its image: any number, also none, of a phrase or of examples alone; exactly
        one, perhaps an empty mask, where a box or points mark it (`MaskPrompt.marks_one`)."""
        ...


@dataclass(frozen=True)
class LowResolution:
    """What the decoder says about n prompts: logits `(n, h, w)` float32 and predicted IoU `(n,)` float32."""

    logits: torch.Tensor
    scores: torch.Tensor


class ImageTooLarge(ModelError):
    """One image alone does not fit in the device's memory; `image` is the one."""

    def __init__(self, image: Image.Image, message: str) -> None:
        super().__init__(message)
        self.image = image


def takes(segmenter: Segmenter) -> frozenset[str]:
    """What the mask prompts of a segmenter may hold, a part of ALL_PROMPTS."""
    return frozenset(getattr(segmenter, "takes", BOXES_AND_POINTS))


def check_takes(segmenter: Segmenter, wanted: Iterable[str], who: str) -> None:
    """Raise ModelError unless the segmenter takes all that is wanted. who: wants it, in a few words."""
    if lacking := sorted(set(wanted) - takes(segmenter)):
        raise ModelError(
            f"{who} {' and '.join(lacking)}, which the segmenter {type(segmenter).__name__} does not take: "
            "use concept:facebook/sam3, or shapes for the tiny world"
        )


def held(prompts: Iterable[MaskPrompt]) -> set[str]:
    """What mask prompts hold, as `takes` names it."""
    found = set()
    for prompt in prompts:
        parts = {"boxes": prompt.box_xyxy, "points": prompt.points_xy, "words": prompt.phrase}
        found |= {name for name, part in (parts | {"examples": prompt.exemplars_xyxy}).items() if part}
    return found


def check_frames(prompts: Iterable[MaskPrompt]) -> None:
    """Raise FrameError unless every prompt is in original pixels."""
    for prompt in prompts:
        if prompt.frame.kind is not FrameKind.ORIGINAL:
            raise FrameError(
                f"a segmenter takes original pixels, not {prompt.frame.kind.value}: use coordinates.to_original first"
            )


Key = tuple[str, tuple[int, int]]
"""An image's id and size."""


@dataclass
class _Work:
    """One image and the different prompts that the batch asks of it."""

    image: Image.Image
    rows: dict[Hashable, int] = field(default_factory=dict)
    prompts: list[MaskPrompt] = field(default_factory=list)

    def row(self, prompt: MaskPrompt) -> int:
        """The row of `prompt` among this image's masks; equal prompts share one."""
        prior = prompt.prior_logits
        key = (prompt, None if prior is None else id(prior))
        if key not in self.rows:
            self.rows[key] = len(self.prompts)
            self.prompts.append(prompt)
        return self.rows[key]


Works = dict[Key, _Work]


def segment(
    segmenter: Segmenter,
    images: Sequence[Image.Image],
    answers: Sequence[Answer],
    *,
    image_ids: Sequence[str] | None = None,
    keeps_logits: bool = False,
    max_mask_pixels: int | None = None,
) -> list[Segmentation]:
    """The masks of `answers[i]` on `images[i]`, with the answer in original pixels.

    answers: in any known frame; `coordinates.to_original` converts and clips them here.
    image_ids: equal exactly for equal images of this batch (a group's completions); without them
    images are compared by content. Equal images are encoded once and equal prompts on them decoded
    once; an image that no OK answer asks about is not encoded. keeps_logits: `Segmentation.logits` is set where the
    segmenter gives any, for a later turn. Failures and NO_TARGET give masks of
    shape `(0, H, W)`. A phrase gives a mask, and the answer a prompt, for each instance; an answer whose phrases find
    nothing becomes NO_TARGET. max_mask_pixels: of one answer's masks together; of more instances the surest are kept.
    Raises FrameError for a frame that is not known, ModelError naming an image that alone does not fit in the
    device's memory, and for prompts that the segmenter does not take.
    """
    if len(images) != len(answers):
        raise ValueError(f"{len(images)} images but {len(answers)} answers")
    ids = image_ids if image_ids is not None else _content_ids(images)
    pixel_answers = [to_original(answer, image.size) for answer, image in zip(answers, images, strict=True)]
    works: Works = {}
    rows: list[list[int]] = []
    firsts: list[bool] = []
    keys = [(key, image.size) for key, image in zip(ids, images, strict=True)]
    for key, image, answer in zip(keys, images, pixel_answers, strict=True):
        before = len(works[key].prompts) if key in works else 0
        rows.append([works.setdefault(key, _Work(image)).row(prompt) for prompt in answer.prompts])
        firsts.append(all(row >= before for row in rows[-1]))
    check_takes(segmenter, held(one for work in works.values() for one in work.prompts), "these mask prompts hold")
    if isinstance(segmenter, WordSegmenter):
        instances = _instances(segmenter, works)
        return [
            _of_instances([instances[key][i] for i in row], answer, image, max_mask_pixels)
            if row
            else _nothing(segmenter, image, answer)
            for key, row, answer, image in zip(keys, rows, pixel_answers, images, strict=True)
        ]
    decoded = _decode(segmenter, works, keeps_logits)
    return [
        _rows(decoded[key], row, answer, first) if row else _nothing(segmenter, image, answer)
        for key, row, answer, image, first in zip(keys, rows, pixel_answers, images, firsts, strict=True)
    ]


def _content_ids(images: Sequence[Image.Image]) -> list[str]:
    """`content_id` of each image; one object that stands several times is read once."""
    keys = {id(image): content_id(image) for image in {id(image): image for image in images}.values()}
    return [keys[id(image)] for image in images]


def _encoded(segmenter: Segmenter, works: Works) -> list[Embedding]:
    try:
        return segmenter.encode([work.image for work in works.values()]) if works else []
    except ImageTooLarge as error:
        names = [name for (name, _), work in works.items() if work.image is error.image]
        raise ModelError(f"image {', '.join(names)}: {error}") from error


def _instances(segmenter: WordSegmenter, works: Works) -> dict[Key, list[Instances]]:
    """What each image's prompts found, by the image's key."""
    found = segmenter.decode_instances(_encoded(segmenter, works), [work.prompts for work in works.values()])
    return dict(zip(works, found, strict=True))


def _of_instances(
    parts: Sequence[Instances], answer: Answer, image: Image.Image, max_mask_pixels: int | None
) -> Segmentation:
    """One mask and one prompt for each instance."""
    import torch

    most = None if max_mask_pixels is None else max(1, max_mask_pixels // (image.width * image.height * len(parts)))
    kept = [Instances(part.masks[:most], part.scores[:most]) for part in parts]
    masks, scores = torch.cat([part.masks for part in kept]), torch.cat([part.scores for part in kept])
    pairs = [(prompt, mask) for prompt, part in zip(answer.prompts, kept, strict=True) for mask in part.masks]
    if not pairs:
        words = " or ".join(f'"{prompt.phrase}"' for prompt in answer.prompts if prompt.phrase) or "the examples"
        detail = f"the segmenter finds nothing that fits {words}"
        nothing = torch.zeros((0, image.height, image.width), dtype=torch.bool)
        return Segmentation(replace(answer, status=Status.NO_TARGET, prompts=(), detail=detail), nothing, scores)
    left_out = sum(len(part.masks) for part in parts) - len(masks)
    said = (f"{left_out} instances left out: more masks than are made at once",) if left_out else ()
    prompts = tuple(_one_of(prompt, mask) for prompt, mask in pairs)
    return Segmentation(replace(answer, prompts=prompts, repairs=(*answer.repairs, *said)), masks, scores)


def _one_of(prompt: MaskPrompt, mask: torch.Tensor) -> MaskPrompt:
    """The prompt of one instance: of a phrase alone with the box of its mask, by which it is found again."""
    return prompt if prompt.marks_one else replace(prompt, box_xyxy=mask_to_box(mask.cpu().numpy()))


def _decode(segmenter: Segmenter, works: Works, keeps_logits: bool) -> dict[Key, Decoded]:
    """What the segmenter gives for each image's prompts, by the image's key."""
    embeddings = _encoded(segmenter, works)
    prompts = [work.prompts for work in works.values()]
    if keeps_logits and isinstance(segmenter, ContinuingSegmenter):
        return dict(zip(works, segmenter.decode_turn(embeddings, prompts), strict=True))
    if isinstance(segmenter, ScoringSegmenter):
        scored = segmenter.decode_scored(embeddings, prompts)
        return {key: Decoded(masks, scores) for key, (masks, scores) in zip(works, scored, strict=True)}
    return {key: Decoded(masks) for key, masks in zip(works, segmenter.decode(embeddings, prompts), strict=True)}


def _rows(decoded: Decoded, rows: list[int], answer: Answer, is_first: bool) -> Segmentation:
    """is_first: nobody asked for these rows before; they are then handed on, else copied."""
    place = slice(rows[0], rows[-1] + 1) if is_first and rows == list(range(rows[0], rows[-1] + 1)) else rows
    scores = None if decoded.scores is None else decoded.scores[place]
    logits = None if decoded.logits is None else decoded.logits[place]
    return Segmentation(answer, decoded.masks[place], scores, logits=logits)


def _nothing(segmenter: Segmenter, image: Image.Image, answer: Answer) -> Segmentation:
    import torch

    masks = torch.zeros((0, image.height, image.width), dtype=torch.bool)
    has_scores = isinstance(segmenter, (ScoringSegmenter, WordSegmenter))
    return Segmentation(answer, masks, torch.zeros(0) if has_scores else None)
