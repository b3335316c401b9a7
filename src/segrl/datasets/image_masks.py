"""Camouflage, saliency and fine-mask sets: a folder of images and a folder of masks, one reader for all.

One row, as it stands on disk (a bat fish on the sea floor, from COD10K's test images):

    COD10K-v3/Test/Image/COD10K-CAM-1-Aquatic-1-BatFish-4.jpg
    COD10K-v3/Test/GT_Object/COD10K-CAM-1-Aquatic-1-BatFish-4.png     0 background, 255 the object

and as an example: the query of Seg-R1 (an option), one target, `tags["kind"]` "Aquatic". Where each
set keeps its files stands in `image_mask_layouts`.

Filtered out: in COD10K the images without a camouflaged object (`NonCAM`), which its benchmark leaves
out; in DUT-OMRON the four images that its authors withdrew. A mask is read at the field's threshold
(over 128 of 255, as PySODMetrics does), so the soft votes of PASCAL-S become the majority's. A mask
without a pixel says that nothing is there. A mask of another size than its image is fitted to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segrl.datasets.drawing import stack
from segrl.datasets.image_mask_layouts import LAYOUTS, Layout, Pair
from segrl.datasets.rows import Rows, distinct, files_by_stem
from segrl.errors import DataError
from segrl.types import Example

QUERY = "Identify and segment all the primary objects in the image."
"""What Seg-R1 asks of these sets, in training and evaluation."""

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_MASKS = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Masked:
    """One image file with its mask file."""

    id: str
    image: Path
    mask: Path
    tag: str | None


class ImageMasks(Rows[Masked]):
    """One split of the set `name` (a key of LAYOUTS) under `root`, sorted by file name.

    query: the request that goes with every image. sample: a seeded subset, see Rows. Raises DataError
    for a split that the set does not have, folders that are not there, an image without a mask and
    a mask without an image.
    """

    def __init__(
        self,
        name: str,
        root: Path | str,
        *,
        split: str = "test",
        query: str = QUERY,
        sample: Mapping[str, int] | None = None,
    ) -> None:
        layout = LAYOUTS[name]
        if split not in layout.splits:
            raise DataError(f"{name} has the splits {', '.join(layout.splits)}, not {split!r}")
        base, pairs = _locate(layout, name, split, Path(root))
        rows = [row for pair in pairs for row in _match(base, pair)]
        ids = distinct(row.id for row in rows)
        rows = [replace(row, id=new) for new, row in zip(ids, rows, strict=True)]
        super().__init__(rows, f"{name} {split} ({base})", sample)
        self.query = query

    def read(self, row: Masked) -> Example:
        """See Rows."""
        canvas = self.canvas(row.image)
        mask = canvas.fit(over_128(canvas.mask_values(row.mask)), str(row.mask))
        return Example(
            id=row.id,
            image_id=canvas.content_id,
            image=canvas.image,
            query=self.query,
            targets=stack([mask], mask.shape),
            tags={"kind": row.tag} if row.tag else {},
        )


def over_128(values: np.ndarray) -> np.ndarray:
    """Mask values as `(H, W)` bool: over 128 of 255 (32896 of 65535), or over 0 where none exceeds 1."""
    largest = values.max(initial=0)
    return values > (0 if largest <= 1 else 128 if largest <= 255 else 32896)


def _locate(layout: Layout, name: str, split: str, root: Path) -> tuple[Path, tuple[Pair, ...]]:
    """The first folder and packing whose folders are all there."""
    ways = layout.splits[split]
    for base in (root, *(root / home for home in layout.homes)):
        for pairs in ways:
            if all((base / folder).is_dir() for pair in pairs for folder in (pair.images, pair.masks)):
                return base, pairs
    wanted = ", ".join(f"{folder}/" for pair in ways[0] for folder in dict.fromkeys((pair.images, pair.masks)))
    raise DataError(f"{name} {split} is not under {root}: it needs {wanted} there or in {layout.homes[0]}/")


def _match(base: Path, pair: Pair) -> Iterator[Masked]:
    """The images of a pair with their masks, sorted by stem."""
    is_one_folder = pair.images == pair.masks
    images = _by_stem(base / pair.images, (".jpg", ".jpeg") if is_one_folder else _IMAGES, pair)
    masks = _by_stem(base / pair.masks, (".png", ".bmp") if is_one_folder else _MASKS, pair)
    _refuse(images, images.keys() - masks.keys(), f"no mask in {base / pair.masks}")
    if not pair.is_shared:
        _refuse(masks, masks.keys() - images.keys(), f"no image in {base / pair.images}")
    for stem, image in images.items():
        yield Masked(stem, image, masks[stem], pair.tag or _super_class(stem))


def _by_stem(folder: Path, suffixes: tuple[str, ...], pair: Pair) -> dict[str, Path]:
    files = files_by_stem(folder, suffixes, pair.only)
    return {stem: path for stem, path in files.items() if stem not in pair.skip}


def _refuse(files: Mapping[str, Path], stems: set[str], lack: str) -> None:
    if stems:
        more = f" (nor have {len(stems) - 1} more)" if len(stems) > 1 else ""
        raise DataError(f"{files[min(stems)]} has {lack}{more}")


def _super_class(stem: str) -> str | None:
    """COD10K's own division: `COD10K-CAM-1-Aquatic-1-BatFish-4` is "Aquatic"."""
    parts = stem.split("-")
    return parts[3] if stem.startswith("COD10K-") and len(parts) > 3 else None
