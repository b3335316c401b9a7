"""A folder of images and a folder of masks.

One row, as it stands on disk (a street photograph with two people in it):

    images/FudanPed00001.jpg     559×536, RGB
    masks/FudanPed00001.png      559×536, values 0 (background), 1 (first person), 2 (second person)

and as an example: query "people" (an option of the data set), targets `(2, 536, 559)`.

Every image has a mask of the same stem and the same size, and the other way round (one that was drawn on the
stored pixels of a turned photograph is turned with it); anything else is an error that names the file. A mask
is read by its values (`mask_values`): "auto" takes a mask that holds one value beside 0 as one target
(0/255, 0/1), and otherwise every value above 0 as a target of its own, the lowest first; a mask of zeros says
that nothing is there. Nothing is filtered out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segrl.datasets.drawing import MAX_TARGET_BYTES, stack
from segrl.datasets.rows import Rows, files_by_stem
from segrl.errors import DataError
from segrl.files import legible
from segrl.images import IMAGE_SUFFIXES
from segrl.masks import over_half
from segrl.types import Example

MANY_VALUES = 100
"""More values than this in a mask of 0–255 look like smoothed edges (JPEG), not instances."""

MaskValues = Literal["auto", "binary", "instances"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One image file with its mask file."""

    stem: str
    image: Path
    mask: Path


class Folder(Rows[Pair]):
    """Images and masks matched by stem, sorted by it; files are opened when an example is asked for.

    root: the folder. images, masks: its two sub-folders. query: the request that goes with every
    image. split and part: a seeded split (`{"train": 120, "seed": 0}`) and which side of it to
    read, "train" or "test". mask_values: "binary" (over half of full scale is the target), "instances"
    (one target per value) or "auto". image_id is made from the pixels,
    id from the stem. Raises DataError if a folder is missing or empty, or an image or mask has no partner.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        images: str = "images",
        masks: str = "masks",
        query: str = "the object",
        split: Mapping[str, int] | None = None,
        part: str | None = None,
        mask_values: MaskValues = "auto",
    ) -> None:
        if mask_values not in ("auto", "binary", "instances"):
            raise DataError(f"mask_values is auto, binary or instances, not {mask_values!r}")
        self.query, self._mask_values = query, mask_values
        image_files, mask_files = (_files(Path(root), name) for name in (images, masks))
        for stem in image_files.keys() - mask_files.keys():
            raise DataError(f"{image_files[stem]} has no mask {Path(root) / masks / stem}.png")
        for stem in mask_files.keys() - image_files.keys():
            raise DataError(f"the mask {mask_files[stem]} has no image in {Path(root) / images}")
        stems = _choose(sorted(image_files), split, part)
        super().__init__([Pair(stem, image_files[stem], mask_files[stem]) for stem in stems], str(root))

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems of the files, in the order of the examples."""
        return tuple(row.stem for row in self.rows)

    def read(self, row: Pair) -> Example:
        canvas = self.canvas(row.image)
        values = canvas.mask_values(row.mask)
        fit = canvas.fitting(values.shape, str(row.mask), scale=False)
        drawn = split_targets(values, self._mask_values, row.mask)
        return Example(
            id=legible(row.stem),
            image_id=canvas.content_id,
            image=canvas.image,
            query=self.query,
            targets=stack([fit(mask) for mask in drawn], canvas.hw, str(row.mask)),
        )


def split_targets(values: np.ndarray, mask_values: MaskValues, path: Path) -> np.ndarray:
    """`(H, W)` mask values → `(N, H, W)` bool targets, N = 0 where all values are 0.

    Raises DataError (naming `path`) where "auto" cannot tell smoothed edges from instances.
    """
    if mask_values == "binary":
        target = over_half(values)
        return target[None] if target.any() else target[None][:0]
    present = [int(value) for value in np.unique(values) if value != 0]
    if mask_values == "auto" and len(present) > MANY_VALUES and present[-1] <= 255:
        raise DataError(
            f"the mask {path} holds {len(present)} different values: if they are one target with smoothed edges "
            "say mask_values: binary, if they are instances say mask_values: instances"
        )
    if len(present) * values.size > MAX_TARGET_BYTES:
        raise DataError(f"the mask {path} holds {len(present)} values, too many for one example of its size")
    return np.stack([values == value for value in present]) if present else np.zeros((0, *values.shape), dtype=bool)


def _files(root: Path, name: str) -> dict[str, Path]:
    """The image files of a sub-folder by stem."""
    folder = root / name
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: a data set of this kind needs it (options images and masks)")
    files = files_by_stem(folder, IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def _choose(stems: list[str], split: Mapping[str, int] | None, part: str | None) -> list[str]:
    """The stems of one part of a seeded split, sorted; all of them without a split."""
    if split is None and part is None:
        return stems
    if split is None or part not in ("train", "test"):
        raise DataError('a part of a data set needs split: {"train": n, "seed": s} and part: train or test')
    unknown = set(split) - {"train", "seed"}
    train, seed = split.get("train"), split.get("seed", 0)
    if unknown or type(train) is not int or type(seed) is not int:
        raise DataError(f'a split is {{"train": n, "seed": s}} with whole numbers, not {dict(split)}')
    if not 0 < train < len(stems):
        raise DataError(f"split.train is {train}, but there are {len(stems)} images: choose 1 to {len(stems) - 1}")
    shuffled = random.Random(seed).sample(stems, len(stems))
    return sorted(shuffled[:train] if part == "train" else shuffled[train:])
