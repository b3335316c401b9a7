"""The masks of JSON annotation files: polygons and run lengths as COCO writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrl.errors import DataError
from segrl.types import Box


@dataclass(frozen=True, slots=True)
class Instance:
    """One COCO annotation: its segmentation as it stands in the file, in the pixels of `image_hw`.

    box_xyxy: COCO's own box with an exclusive maximum, None where the file has none.
    """

    id: Any
    segmentation: Any
    box_xyxy: Box | None
    image_hw: tuple[int, int]

    @classmethod
    def from_coco(cls, annotation: Mapping[str, Any], image_hw: tuple[int, int]) -> Instance:
        """An entry of `annotations`."""
        box = annotation.get("bbox")
        xyxy = xywh_to_xyxy(box) if box else None
        return cls(annotation["id"], annotation.get("segmentation"), xyxy, image_hw)


def checked(entry: Any, name: str, *keys: str) -> Mapping[str, Any]:
    """An entry of a JSON file, which is called `name`. Raises DataError naming the first of `keys` that it lacks."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{name} is no object with {', '.join(keys)}: {entry!r:.80}")
    for key in keys:
        if entry.get(key) is None:
            raise DataError(f"{name} has no {key}")
    return entry


def read_json(path: Path, *encodings: str) -> Any:
    """The contents of a JSON file in the first of `encodings` that fits (utf-8 without any).

    Raises DataError naming the file if it is missing or no JSON.
    """
    for encoding in encodings or ("utf-8",):
        try:
            return json.loads(path.read_text(encoding=encoding))
        except UnicodeDecodeError:
            continue
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
    raise DataError(f"cannot read {path}: it is text in none of {', '.join(encodings or ('utf-8',))}")


def xywh_to_xyxy(box: Sequence[float]) -> Box:
    """COCO's `[x, y, width, height]` as `(x1, y1, x2, y2)` with an exclusive maximum."""
    x, y, width, height = map(float, box)
    return (x, y, x + width, y + height)


def stack(masks: Sequence[np.ndarray], image_hw: tuple[int, int]) -> np.ndarray:
    """`(H, W)` masks as `(N, H, W)` bool, those without a pixel left out; N = 0 for none."""
    seen = [mask for mask in masks if mask.any()]
    return np.stack(seen) if seen else np.zeros((0, *image_hw), dtype=bool)
