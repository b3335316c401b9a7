"""Is a data set complete? What is publicly known of each benchmark, what is there and missing, and the gold check.

Counts are given only where a public source confirms them: RefCOCO's, RefCOCO+'s and RefCOCOg's in
the tables of TensorFlow Datasets and in VLM-R1's files; ReasonSeg's in LISA's README; the others in
the papers and evaluation code of their fields. A count that is not here is not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from segrl import datasets
from segrl.datasets.gold import gold_answer
from segrl.datasets.rows import Rows, spread
from segrl.errors import DataError
from segrl.images import is_turned_in_place
from segrl.types import Answer, Example, Status

if TYPE_CHECKING:
    from segrl.segmenters import Segmenter


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
    "star": Benchmark(
        "https://huggingface.co/datasets/sj9909/visionreasoner_multi_object_refcocolvis_masks_840",
        "nothing: without --root it is read from the hub; or what StAR's download script saved",
        {"train": Size()},
    ),
    "reasonseg-r": Benchmark(
        "https://huggingface.co/datasets/sj9909/ReasonSeg_refine",
        "nothing: without --root it is read from the hub; or what StAR's download script saved",
        {"test": Size()},
    ),
    "reasonseg-x": Benchmark(
        "https://github.com/ysj9909/StAR",
        "nothing: without --root it is read from the hub; or ReasonSegX_train, ReasonSegX_val and ReasonSegX_test",
        {"train": Size(None, 240), "val": Size(None, 156), "test": Size(None, 773)},
    ),
    "muse": Benchmark(
        "https://github.com/MaverickRen/PixelLM",
        "MUSE_train.json, MUSE_val.json, MUSE_test_few.json and MUSE_test_many.json; COCO's 2017 pictures in images",
        {"train": Size(), "val": Size(), "test_few": Size(), "test_many": Size()},
    ),
    "mmr": Benchmark(
        "https://github.com/jdg900/MMR",
        "MMR_train.json, MMR_val.json and MMR_test_….json; COCO's 2017 pictures in images",
        {"train": Size(), "val": Size(), "test_mixed": Size(), "test_obj_only": Size(), "test_part_only": Size()},
    ),
    "earthreason": Benchmark(
        "https://huggingface.co/datasets/earth-insights/EarthReason",
        "train, val and test, each with images, labels and QAs",
        {"train": Size(), "val": Size(1135), "test": Size(1928)},
    ),
    "lvis": Benchmark(
        "https://www.lvisdataset.org/dataset",
        "lvis_v1_train.json, lvis_v1_val.json; COCO's 2017 pictures in images",
        {"train": Size(), "val": Size()},
        {split: {"annotations": f"lvis_v1_{split}.json"} for split in ("train", "val")},
    ),
}
"""The benchmarks by the name that `datasets.load` knows."""


GOLD_FLOOR = 0.5
"""Mean IoU that gold mask prompts must reach unless said otherwise: set by hand, low enough for a coarse
segmenter, high enough that masks of other images or in another frame do not pass."""

DEFAULT_GOLD = 50
"""Examples of a split that the gold check reads, spread evenly over it."""


@dataclass(frozen=True)
class SplitCheck:
    """What was found of one split.

    images, examples: numbers found; None where the split cannot be read, and `problem` says why; images
    also where the reader does not count them. published: what its authors count. gold_iou: mean IoU of
    gold mask prompts, None if not asked for; it must reach `gold_floor`. notes: what is no fault and worth a look.
    """

    name: str
    split: str
    published: Size
    images: int | None = None
    examples: int | None = None
    problem: str | None = None
    gold_iou: float | None = None
    gold_floor: float = GOLD_FLOOR
    notes: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """One line for each thing that is wrong; empty for a split that is as it should be."""
        if self.problem is not None:
            return (self.problem,)
        counted = (("images", self.images, self.published.images), ("examples", self.examples, self.published.examples))
        wrong = [
            f"{found} {what}, but {wanted} are published"
            for what, found, wanted in counted
            if found is not None and wanted not in (None, found)
        ]
        if self.gold_iou is not None and self.gold_iou < self.gold_floor:
            wrong.append(
                f"gold mask prompts reach IoU {self.gold_iou:.3f}, below {self.gold_floor}: masks and images do not fit"
            )
        return tuple(wrong)


def check(
    name: str,
    root: str | None = None,
    *,
    splits: Sequence[str] | None = None,
    segmenter: Segmenter | None = None,
    n_gold: int = DEFAULT_GOLD,
    gold_floor: float = GOLD_FLOOR,
    options: Mapping[str, Any] | None = None,
) -> list[SplitCheck]:
    """Reads each split of the data set `name` under `root` and compares it with what is published.

    splits: which of them (default: all of a benchmark; another set is read once, without the option
    `split`). segmenter: run the gold check with it on `n_gold` examples of each split that can be read;
    they must reach `gold_floor`. options: further options of the reader. Raises DataError for an unknown
    name or split, and for a split among the options that would stand for every split.
    """
    given = ({} if root is None else {"root": root}) | dict(options or {})
    if "split" in given and (splits or name in BENCHMARKS):
        raise DataError(f"{name}: a split is named with --split, not as an option of the reader")
    found = [
        _check_split(name, split, published, of_split | given, segmenter, n_gold)
        for split, published, of_split in _wanted(name, splits)
    ]
    return [replace(one, gold_floor=gold_floor) for one in found]


def _wanted(name: str, splits: Sequence[str] | None) -> list[tuple[str, Size, dict[str, Any]]]:
    """Each split with its published size and what the reader is told for it."""
    if name not in BENCHMARKS:
        return [(split, Size(), {"split": split}) for split in splits or ()] or [("all", Size(), {})]
    benchmark = BENCHMARKS[name]
    for split in splits or ():
        if split not in benchmark.splits:
            raise DataError(f"{name} has the splits {', '.join(benchmark.splits)}, not {split!r}")
    return [(split, benchmark.splits[split], benchmark.split_options(split)) for split in splits or benchmark.splits]


def _check_split(
    name: str, split: str, published: Size, options: Mapping[str, Any], segmenter: Segmenter | None, n_gold: int
) -> SplitCheck:
    if name not in datasets.NAMES:
        datasets.load(name)  # raises, naming the nearest
    try:
        examples = datasets.load(name, **options)
        gold = None if segmenter is None else gold_iou([examples[i] for i in spread(len(examples), n_gold)], segmenter)
    except DataError as error:
        return SplitCheck(name, split, published, problem=str(error))
    images = getattr(examples, "n_images", None)
    try:
        notes = turned_photographs(examples)
    except DataError as error:
        return SplitCheck(name, split, published, problem=str(error))
    return SplitCheck(name, split, published, images, len(examples), gold_iou=gold, notes=notes)


def turned_photographs(examples: Sequence[Example]) -> tuple[str, ...]:
    """A line that counts photographs which EXIF turns without changing their sides; none where there are none.

    Masks drawn on their stored pixels fit in size and lie in the wrong place; nothing in the files can tell.
    Raises DataError for an image that cannot be read.
    """
    if not isinstance(examples, Rows) or examples.pictures.masks == "stored":
        return ()
    turned = [path for path in sorted({row.image for row in examples.rows}) if is_turned_in_place(path)]
    if not turned:
        return ()
    return (
        f"{len(turned)} photographs are turned by EXIF and keep their sides, the first is {turned[0]}: "
        "if masks were drawn on the stored pixels, say pictures: {masks: stored}",
    )


def gold_iou(examples: Sequence[Example], segmenter: Segmenter, batch_size: int = 8) -> float | None:
    """Mean IoU of the gold mask prompts' masks through a segmenter; None without an example that has a target.

    The prompts are made from the targets (`gold.gold_answer`) in original pixels and scored as every
    answer is. Examples without a target have no mask prompt and are left out.
    """
    from segrl.scoring import score
    from segrl.segmenters import segment

    with_target = iter([example for example in examples if len(example.targets)])
    scores: list[float] = []
    while batch := list(islice(with_target, batch_size)):
        answers = [Answer(Status.OK, gold_answer(example)) for example in batch]
        masks = segment(segmenter, [e.image for e in batch], answers, image_ids=[e.image_id for e in batch])
        found = score(masks, [e.truth for e in batch], [e.ignore for e in batch])
        scores += [one.iou for one in found]
    return sum(scores) / len(scores) if scores else None
