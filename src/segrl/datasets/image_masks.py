"""Camouflage, saliency and fine-mask sets: a folder of images and a folder of masks, one reader for all.

One row, as it stands on disk (a bat fish on the sea floor, from COD10K's test images):

    COD10K-v3/Test/Image/COD10K-CAM-1-Aquatic-1-BatFish-4.jpg
    COD10K-v3/Test/GT_Object/COD10K-CAM-1-Aquatic-1-BatFish-4.png     0 background, 255 the object

and as an example: the query of Seg-R1 (an option), one target, `tags["kind"]` "Aquatic". Where each
set keeps its files, as its authors packed them, stands in `LAYOUTS`.

Filtered out: in COD10K the images without a camouflaged object (`NonCAM`), which its benchmark leaves
out; in DUT-OMRON the four images that its authors withdrew. A mask is read at the field's threshold
(over 128 of 255, as PySODMetrics does), so the soft votes of PASCAL-S become the majority's. A mask
without a pixel says that nothing is there. A mask of another size than its image is fitted to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from segrl.datasets.drawing import stack
from segrl.datasets.rows import Rows, distinct, files_by_stem
from segrl.errors import DataError
from segrl.types import Example


@dataclass(frozen=True)
class Pair:
    """A folder of images and a folder of masks of the same stems.

    only: the beginning of the stems that belong to the set. is_shared: the masks' folder also holds
    masks of other splits (or the images themselves), which are passed over. skip: stems of images
    that their authors withdrew. tag: what `tags["kind"]` says.
    """

    images: str
    masks: str
    only: str = ""
    is_shared: bool = False
    skip: frozenset[str] = frozenset()
    tag: str | None = None


@dataclass(frozen=True)
class Layout:
    """homes: names of the set's own folder under a root. splits: for each split the ways it is packed, the
    first of which is the authors'; a split may be several pairs."""

    homes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[Pair, ...], ...]] = field(default_factory=dict)


def _dis(part: str) -> Pair:
    return Pair(f"DIS-{part}/im", f"DIS-{part}/gt", tag=f"DIS-{part}")


_DIS_TESTS = ("TE1", "TE2", "TE3", "TE4")

# Withdrawn on 2018-01-22 because they have no pixel-wise truth (saliencydetection.net/dut-omron).
_OMRON_WITHDRAWN = frozenset({"img_561715398", "sun_bqfgwnmzhjwuphdi", "sun_bswlalhygmnrhvuw", "sun_buaqzytduodbufcb"})

LAYOUTS: Mapping[str, Layout] = {
    "cod10k": Layout(
        ("COD10K-v3", "COD10K"),
        {
            "train": (
                (Pair("Train/Image", "Train/GT_Object", only="COD10K-CAM-"),),
                (Pair("TrainDataset/Imgs", "TrainDataset/GT", only="COD10K-CAM-"),),
            ),
            "test": (
                (Pair("Test/Image", "Test/GT_Object", only="COD10K-CAM-"),),
                (Pair("TestDataset/COD10K/Imgs", "TestDataset/COD10K/GT", only="COD10K-CAM-"),),
            ),
        },
    ),
    "camo": Layout(
        ("CAMO-V.1.0-CVIU2019", "CAMO"),
        {
            "train": (
                (Pair("Images/Train", "GT", is_shared=True),),
                (Pair("TrainDataset/Imgs", "TrainDataset/GT", only="camourflage_"),),
            ),
            "test": (
                (Pair("Images/Test", "GT", is_shared=True),),
                (Pair("TestDataset/CAMO/Imgs", "TestDataset/CAMO/GT"),),
            ),
        },
    ),
    "nc4k": Layout(("NC4K", "TestDataset/NC4K"), {"test": ((Pair("Imgs", "GT"),),)}),
    "chameleon": Layout(("CHAMELEON", "TestDataset/CHAMELEON"), {"test": ((Pair("Imgs", "GT"),),)}),
    "duts": Layout(
        ("DUTS",),
        {
            "train": ((Pair("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),),),
            "test": ((Pair("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),),),
        },
    ),
    "dut-omron": Layout(
        ("DUT-OMRON", "DUTOMRON"),
        {"test": ((Pair("DUT-OMRON-image", "pixelwiseGT-new-PNG", skip=_OMRON_WITHDRAWN),),)},
    ),
    "hku-is": Layout(("HKU-IS",), {"test": ((Pair("imgs", "gt"),),)}),
    "ecssd": Layout(("ECSSD",), {"test": ((Pair("images", "ground_truth_mask"),),)}),
    "pascal-s": Layout(
        ("PASCAL-S", "PASCAL"),
        {
            "test": (
                (Pair("datasets/imgs/pascal", "datasets/masks/pascal"),),
                (Pair("Imgs", "Imgs", is_shared=True),),
            )
        },
    ),
    "dis5k": Layout(
        ("DIS5K",),
        {
            "train": ((_dis("TR"),),),
            "val": ((_dis("VD"),),),
            "test": (tuple(_dis(part) for part in _DIS_TESTS),),
            **{f"test{n}": ((_dis(part),),) for n, part in enumerate(_DIS_TESTS, 1)},
        },
    ),
}
"""Sets of images with one mask each, by the name that `datasets.load` knows."""


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

    query: the request that goes with every image. hold_out: of so many images, in the order of their names,
    the first is held out; part: "train", the others, or "held_out" (without hold_out both are all). Raises DataError
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
        hold_out: int | None = None,
        part: Literal["train", "held_out"] = "train",
    ) -> None:
        layout = LAYOUTS[name]
        if split not in layout.splits:
            raise DataError(f"{name} has the splits {', '.join(layout.splits)}, not {split!r}")
        base, pairs = _locate(layout, name, split, Path(root))
        rows = [row for pair in pairs for row in _match(base, pair)]
        ids = distinct(row.id for row in rows)
        rows = [replace(row, id=new) for new, row in zip(ids, rows, strict=True)]
        if hold_out is not None:
            rows = _part(rows, hold_out, part)
        super().__init__(rows, f"{name} {split} ({base})")
        self.query = query

    def read(self, row: Masked) -> Example:
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


def _part(rows: Sequence[Masked], hold_out: int, part: str) -> list[Masked]:
    if type(hold_out) is not int or hold_out < 2 or part not in ("train", "held_out"):
        raise DataError(f"hold_out is a whole number from 2 and part train or held_out, not {hold_out!r} and {part!r}")
    return [row for i, row in enumerate(rows) if (i % hold_out == 0) == (part == "held_out")]


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
