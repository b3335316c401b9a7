"""What is kept of one image: its answers with their masks, and its line in a JSON Lines file.

{"image": "/data/photos/a/dog.jpg", "file_name": "a/dog.jpg", "name": "a/dog", "size_wh": [640, 480],
 "answers": [{"query": "the dog", "status": "ok", "text": "<think>…", "reasoning": "…", "detail": "",
              "prompts": [{"box_xyxy": [10, 20, 60, 70], "points_xy": [[30, 40]], "labels": [1]}],
              "masks": [{"size": [480, 640], "counts": "…"}]}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segrl.masks import Rle, to_rle
from segrl.types import ORIGINAL, MaskPrompt, Status

if TYPE_CHECKING:
    from segrl.pipeline import Result


@dataclass(frozen=True)
class Found:
    """The answer to one query. masks: one per object, at the image's size; prompts in original pixels."""

    query: str
    status: Status
    text: str
    reasoning: str | None
    detail: str
    prompts: tuple[MaskPrompt, ...]
    masks: tuple[Rle, ...]

    @classmethod
    def from_result(cls, result: Result) -> Found:
        """What a pipeline said."""
        answer = result.answer
        masks = tuple(to_rle(mask) for mask in result.masks)
        return cls(result.query, answer.status, result.text, answer.reasoning, answer.detail, answer.prompts, masks)


@dataclass(frozen=True)
class ImageRecord:
    """One image with all its answers.

    image: where the file lies. file_name: how exports call it, unique in an export. name: what files
    made of it are called (a relative path without suffix), unique as well. size_wh: with the EXIF
    orientation applied, the size of every mask. stale: formats whose file of this image is there, but
    lacks the last answers.
    """

    image: str
    file_name: str
    name: str
    size_wh: tuple[int, int]
    answers: tuple[Found, ...]
    stale: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as its line holds it."""
        return {
            "image": self.image,
            "file_name": self.file_name,
            "name": self.name,
            "size_wh": list(self.size_wh),
            "answers": [_answer_json(found) for found in self.answers],
            **({"stale": list(self.stale)} if self.stale else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ImageRecord:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for a row that is no record."""
        width, height = row["size_wh"]
        answers = tuple(
            Found(
                **{
                    **answer,
                    "status": Status(answer["status"]),
                    "prompts": tuple(MaskPrompt.from_json(prompt, ORIGINAL) for prompt in answer["prompts"]),
                    "masks": tuple(answer["masks"]),
                }
            )
            for answer in row["answers"]
        )
        size_wh, stale = (int(width), int(height)), tuple(row.get("stale", ()))
        return cls(row["image"], row["file_name"], row["name"], size_wh, answers, stale)


def record(image: str, results: Sequence[Result], *, file_name: str, name: str) -> ImageRecord:
    """The record of one image from its results, at least one. Raises ValueError if their images differ in size."""
    sizes = {result.image.size for result in results}
    if len(sizes) != 1:
        raise ValueError(f"the results of one image have one size, not {sorted(sizes)}")
    return ImageRecord(image, file_name, name, sizes.pop(), tuple(map(Found.from_result, results)))


def _answer_json(found: Found) -> dict[str, Any]:
    return {
        "query": found.query,
        "status": found.status.value,
        "text": found.text,
        "reasoning": found.reasoning,
        "detail": found.detail,
        "prompts": [prompt.to_json() for prompt in found.prompts],
        "masks": list(found.masks),
    }
