"""Examples whose truth is gold mask prompts, not masks: what sets for a cold start have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from segrl.coordinates import to_original
from segrl.datasets.drawing import stack
from segrl.errors import DataError
from segrl.images import content_id
from segrl.masks import box_to_mask
from segrl.types import Answer, Example, MaskPrompt, Status


def prompted_example(
    id: str,
    image: Image.Image,
    query: str,
    prompts: Sequence[MaskPrompt],
    where: str,
    meta: Mapping[str, Any] | None = None,
) -> Example:
    """The example of an image and its gold mask prompts, whose frame says what their numbers are.

    `meta["prompts"]` holds them in original pixels. The targets are the filled boxes and `meta["truth"]`
    is "box": box accuracy is what such data can measure, and an IoU says how well a mask fills the box.
    Raises DataError naming `where` for a box that holds no pixel of the image, and a prompt without a box.
    """
    answer = Answer(Status.OK, tuple(prompts)) if prompts else Answer(Status.NO_TARGET)
    found = to_original(answer, image.size)
    boxes = [prompt.box_xyxy for prompt in found.prompts]
    if found.status.is_failure or None in boxes:
        raise DataError(
            f"{where}: {found.detail or 'a mask prompt without a box'}; are its numbers about another size?"
        )
    hw = (image.height, image.width)
    return Example(
        id=id,
        image_id=content_id(image),
        image=image,
        query=query,
        targets=stack([box_to_mask(box, hw) for box in boxes if box is not None], hw),
        meta={**(meta or {}), "prompts": found.prompts, "boxes_xyxy": tuple(boxes), "truth": "box"},
    )
