"""What is publicly known of each benchmark: its splits, how large they are, and its official page.

Counts are given only where a public source confirms them: RefCOCO's, RefCOCO+'s and RefCOCOg's in
the tables of TensorFlow Datasets and in VLM-R1's files; ReasonSeg's in LISA's README; the others in
the papers and evaluation code of their fields. A count that is not here is not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """Numbers of images and of examples (expressions) of a split; None where no public count was found."""

    images: int | None = None
    examples: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """page: where its authors give it away. needs: what to put under the root. splits: options of the
    reader for each split, in the order of the report, with the published size."""

    page: str
    needs: str
    splits: Mapping[str, Size]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def split_options(self, split: str) -> dict[str, Any]:
        """What the reader is told for a split."""
        return dict(self.options.get(split, {"split": split}))


_REFER = "https://github.com/lichengunc/refer"
_COCO = "COCO's train2014 images (https://cocodataset.org/#download) in images/mscoco/images/train2014"
_SINET = "https://github.com/DengPingFan/SINet"


def _one(images: int, split: str = "test") -> dict[str, Size]:
    return {split: Size(images, images)}


BENCHMARKS: Mapping[str, Benchmark] = {
    "refcoco": Benchmark(
        _REFER,
        f"refcoco/refs(unc).p and refcoco/instances.json; {_COCO}",
        {
            "train": Size(16994, 120624),
            "val": Size(1500, 10834),
            "testA": Size(750, 5657),
            "testB": Size(750, 5095),
        },
    ),
    "refcoco+": Benchmark(
        _REFER,
        f"refcoco+/refs(unc).p and refcoco+/instances.json; {_COCO}",
        {
            "train": Size(None, 120191),
            "val": Size(1500, 10758),
            "testA": Size(750, 5726),
            "testB": Size(750, 4889),
        },
    ),
    "refcocog": Benchmark(
        _REFER,
        f"refcocog/refs(umd).p, refcocog/refs(google).p and refcocog/instances.json; {_COCO}",
        {"train": Size(None, 80512), "val": Size(1300, 4896), "test": Size(2600, 9602), "google-val": Size()},
        {"google-val": {"split": "val", "split_by": "google"}},
    ),
    "grefcoco": Benchmark(
        "https://github.com/henghuiding/gRefCOCO",
        f"grefcoco/grefs(unc).json and grefcoco/instances.json; {_COCO}",
        {"train": Size(), "val": Size(), "testA": Size(), "testB": Size()},
    ),
    "reasonseg": Benchmark(
        "https://github.com/dvlab-research/LISA#dataset",
        "ReasonSeg/train, ReasonSeg/val and ReasonSeg/test",
        {"train": Size(239), "val": Size(200), "test": Size(779)},
    ),
    "lisa-grounding": Benchmark(
        "https://github.com/om-ai-lab/VLM-R1",
        "lisa_test.json (of rec_jsons_processed.zip) and the images of lisa-test.zip",
        {"test": Size(None, 1658)},
        {"test": {}},
    ),
    "cod10k": Benchmark(_SINET, "COD10K-v3/Train and COD10K-v3/Test", {**_one(3040, "train"), **_one(2026)}),
    "camo": Benchmark(
        "https://sites.google.com/view/ltnghia/research/camo",
        "CAMO-V.1.0-CVIU2019/Images and CAMO-V.1.0-CVIU2019/GT",
        {**_one(1000, "train"), **_one(250)},
    ),
    "nc4k": Benchmark(
        "https://github.com/JingZhang617/COD-Rank-Localize-and-Segment", "NC4K/Imgs and NC4K/GT", _one(4121)
    ),
    "chameleon": Benchmark(_SINET, "CHAMELEON/Imgs and CHAMELEON/GT", _one(76)),
    "duts": Benchmark(
        "http://saliencydetection.net/duts/", "DUTS-TR and DUTS-TE", {**_one(10553, "train"), **_one(5019)}
    ),
    "dut-omron": Benchmark(
        "http://saliencydetection.net/dut-omron/", "DUT-OMRON-image and pixelwiseGT-new-PNG", _one(5168)
    ),
    "hku-is": Benchmark(
        "https://i.cs.hku.hk/~yzyu/research/deep_saliency.html", "HKU-IS/imgs and HKU-IS/gt", _one(4447)
    ),
    "ecssd": Benchmark(
        "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
        "ECSSD/images and ECSSD/ground_truth_mask",
        _one(1000),
    ),
    "pascal-s": Benchmark(
        "https://cbs.ic.gatech.edu/salobj/", "datasets/imgs/pascal and datasets/masks/pascal", _one(850)
    ),
    "dis5k": Benchmark(
        "https://github.com/xuebinqin/DIS",
        "DIS5K/DIS-TR, DIS5K/DIS-VD and DIS5K/DIS-TE1 to DIS-TE4",
        {
            **_one(3000, "train"),
            **_one(470, "val"),
            **_one(2000),
            **{f"test{n}": Size() for n in (1, 2, 3, 4)},
        },
    ),
    "fcot": Benchmark(
        "https://huggingface.co/datasets/geshang/FCoT",
        "nothing: without --root it is read from the hub; or a clone of its page",
        _one(1500, "train"),
    ),
    "seg-zero": Benchmark(
        "https://huggingface.co/datasets/Ricky06662/refCOCOg_9k_840",
        "nothing: without --root the set of 9,000 is read from the hub; or a clone of its page",
        {"train": Size()},
    ),
    "visionreasoner": Benchmark(
        "https://huggingface.co/datasets/Ricky06662/VisionReasoner_multi_object_7k_840",
        "nothing: without --root it is read from the hub; or a clone of its page",
        {"train": Size()},
    ),
}
"""The benchmarks by the name that `datasets.load` knows."""
