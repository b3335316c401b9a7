"""Small files in the layouts of the originals, with what the originals have that is odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRAIN2014 = "images/mscoco/images/train2014"


def save_image(path: Path, size_wh: tuple[int, int] = (12, 8), mode: str = "RGB", orientation: int = 1) -> Path:
    """An image whose pixels are its path's own, so that no two files are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = sum(map(ord, path.name)) % 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size_wh, (shade, 255 - shade, 90)).convert(mode).save(path, exif=exif)
    return path


def save_mask(path: Path, mask: np.ndarray, high: int = 255) -> Path:
    """A mask file: 0 and `high`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(high)).save(path)
    return path


def save_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def box_mask(box_xyxy: tuple[int, int, int, int], hw: tuple[int, int] = (8, 12)) -> np.ndarray:
    """A filled box, exclusive maximum."""
    mask = np.zeros(hw, dtype=bool)
    x1, y1, x2, y2 = box_xyxy
    mask[y1:y2, x1:x2] = True
    return mask


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[float]:
    """The polygon of a box, as COCO writes it."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def crowd_runs(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed run lengths, as COCO's crowds have them: down the columns, zeros first."""
    counts, last, length = [], False, 0
    for value in mask.T.ravel():
        if value != last:
            counts, last, length = [*counts, length], value, 0
        length += 1
    return {"counts": [*counts, length], "size": list(mask.shape)}


def annotation(number: int, image_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    """A COCO annotation of category 18."""
    plain = {"id": number, "image_id": image_id, "category_id": 18, "iscrowd": 0, "area": 1.0, "bbox": [1, 2, 3, 4]}
    return plain | {"segmentation": segmentation} | more


def coco_image(number: int, size_wh: tuple[int, int] = (12, 8), file_name: str | None = None) -> dict[str, Any]:
    """An entry of COCO's list of images."""
    name = file_name or f"COCO_train2014_{number:012d}.jpg"
    return {"id": number, "file_name": name, "width": size_wh[0], "height": size_wh[1]}


def reference(ref_id: int, image_id: int, ann_id: Any, sentences: list[str], split: str = "val") -> dict[str, Any]:
    """An entry of refs(unc).p; its file_name names no file, as in the original."""
    numbers = [10 * ref_id + k for k in range(len(sentences))]
    texts = [
        {"tokens": text.split(), "raw": text.upper(), "sent_id": n, "sent": text}
        for n, text in zip(numbers, sentences, strict=True)
    ]
    return {
        "sent_ids": numbers,
        "file_name": f"COCO_train2014_{image_id:012d}_{ref_id}.jpg",
        "ann_id": ann_id,
        "ref_id": ref_id,
        "image_id": image_id,
        "split": split,
        "sentences": texts,
        "category_id": 18,
    }
