"""Where camouflage, saliency and fine-mask sets keep their images and masks, as their authors packed them.

One line of the table: COD10K's test images lie in `Test/Image`, their masks in `Test/GT_Object`, and
only the files whose names begin with `COD10K-CAM-` show a camouflaged object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
