"""Annotated instances drawn on their image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segrl.datasets.annotations import Instance, stack
from segrl.datasets.fitting import fit_mask
from segrl.masks import decode_segmentation, mask_to_box
from segrl.types import Box


def draw_instances(
    instances: Sequence[Instance], image: Image.Image, image_file: Path
) -> tuple[np.ndarray, tuple[Box, ...]]:
    """`(N, H, W)` bool masks of the instances that have a pixel, and the box of each in original pixels.

    The boxes are the file's own; where it has none, or is in other pixels than the upright image's
    (`fit_mask` says when), a mask's tight box. Raises DataError naming the annotation that cannot
    be drawn.
    """
    hw = (image.height, image.width)
    masks, boxes = [], []
    for instance in instances:
        name = f"annotation {instance.id} of {image_file.name}"
        mask = fit_mask(
            decode_segmentation(instance.segmentation, instance.image_hw, name), image.size, image_file, name
        )
        box = mask_to_box(mask)
        if box is None:
            continue
        masks.append(mask)
        boxes.append(instance.box_xyxy if instance.box_xyxy and instance.image_hw == hw else box)
    return stack(masks, hw), tuple(boxes)
