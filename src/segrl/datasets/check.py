"""Is a data set complete? What is there, what is missing and where to get it, and the gold check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from segrl import datasets
from segrl.datasets.gold import gold_answer
from segrl.datasets.published import BENCHMARKS, Size
from segrl.datasets.rows import Rows
from segrl.errors import DataError
from segrl.images import is_turned_in_place
from segrl.types import Answer, Example, Status

if TYPE_CHECKING:
    from segrl.segmenters import Segmenter

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
        gold = None if segmenter is None else gold_iou(spread(examples, n_gold), segmenter)
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


def spread(examples: Sequence[Example], n: int) -> list[Example]:
    """`n` examples at even distances, the first included; all of them where there are no more.

    >>> spread("abcdefgh", 3)
    ['a', 'c', 'f']
    """
    count = min(n, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


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
