"""Data sets made of others: a sample, several joined to one, more views of few images, one of one's own.

    {name: refcoco, root: data, sample: {n: 3000, seed: 0}}

that many examples, drawn with the seed, in the set's order.

    {name: joined, root: data, sets: [{name: cod10k, split: train}, {name: camo, split: train}]}

Each of `sets` is an entry as a recipe's `dataset` has it; `root` goes to those that name none. An example's id gets
the set's place and name before it (`0-cod10k/…`), so that no two are equal; the order is the sets' own.

    {name: folder, root: cells, augment: {views: 8, flip: true}}

Views are random crops, mirrored and lit differently, with their masks. A crop holds every target whole. What else the
image shows may be cut off: a request that places its target among other things ("the second from the left") wants
`crop: 0`.

    {python: my_data.Cells, root: slides}     # a class or function in my_data.py, which lies beside the recipe
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segrl.datasets.rows import Examples
from segrl.errors import DataError, SegrlError
from segrl.images import content_id
from segrl.masks import mask_to_box
from segrl.text import first_line
from segrl.types import Example


def choose_sample(count: int, sample: Mapping[str, int]) -> list[int]:
    """`sample["n"]` places out of `count`, drawn with `sample["seed"]` (0 by default), in order.

    Raises DataError for anything but whole numbers, and for more than there are.

    >>> choose_sample(8, {"n": 3, "seed": 1})
    [0, 2, 4]
    """
    if not isinstance(sample, Mapping):
        raise DataError(f'a sample is {{"n": count, "seed": s}}, not {sample!r}')
    n, seed = sample.get("n"), sample.get("seed", 0)
    if set(sample) - {"n", "seed"} or type(n) is not int or type(seed) is not int:
        raise DataError(f'a sample is {{"n": count, "seed": s}} with whole numbers, not {dict(sample)}')
    if not 0 < n <= count:
        raise DataError(f"sample.n is {n}, but there are {count} examples")
    return sorted(random.Random(seed).sample(range(count), n))


class Subset(Examples):
    """A sample of a set, in its order."""

    def __init__(self, examples: Sequence[Example], sample: Mapping[str, int]) -> None:
        self.made_of, self._places = (examples,), choose_sample(len(examples), sample)

    def __len__(self) -> int:
        return len(self._places)

    def example(self, place: int) -> Example:
        return self.made_of[0][self._places[place]]


class Joined(Examples):
    """The examples of all `sets`, each opened by `load`. Raises DataError for no sets and an entry without a name."""

    def __init__(
        self,
        load: Callable[..., Sequence[Example]],
        sets: Sequence[Mapping[str, Any]],
        root: Path | str | None = None,
    ) -> None:
        if not isinstance(sets, list) or not sets or not all(isinstance(s, dict) and "name" in s for s in sets):
            raise DataError("joined needs sets: a list of entries, each with a name")
        shared = {} if root is None else {"root": root}
        self.made_of = [load(**{**shared, **entry}) for entry in sets]
        self._names = [f"{i}-{entry['name']}" for i, entry in enumerate(sets)]
        self._ends = list(accumulate(map(len, self.made_of)))

    def __len__(self) -> int:
        return self._ends[-1]

    def example(self, place: int) -> Example:
        """See Examples; each set reads its own."""
        which = bisect_right(self._ends, place)
        example = self.made_of[which][place - self._ends[which] + len(self.made_of[which])]
        return replace(example, id=f"{self._names[which]}/{example.id}")


OF_ONE_FRAME = ("prompts", "reasoning", "completion_text", "answer_begins", "named")
"""What an example's `meta` may say of places in its image, which a crop would make wrong."""


@dataclass(frozen=True)
class Augmentation:
    """The options of `augment`.

    views: how many of each example; the first is the example as it is. seed: of all draws. crop: how much
    may be cut from each end, as a share of the side, uniform in [0, crop]. flip: mirror half of the views
    left to right, which is wrong for requests that name a side. light: each colour channel is multiplied
    by one factor for all and one of its own, each uniform in [1 − light, 1 + light].
    """

    views: int
    seed: int = 0
    crop: float = 0.2
    flip: bool = False
    light: float = 0.2

    def __post_init__(self) -> None:
        if type(self.views) is not int or self.views < 1 or type(self.seed) is not int or self.seed < 0:
            raise DataError(f"augment needs whole numbers, views from 1 and seed from 0: {self}")
        if type(self.flip) is not bool:
            raise DataError(f"augment.flip is true or false: {self}")
        for name, share, below in (("crop", self.crop, 0.5), ("light", self.light, 1)):
            if not isinstance(share, int | float) or not 0 <= share < below:
                raise DataError(f"augment.{name} is a share of at least 0 and less than {below}: {self}")


class Augmented(Examples):
    """`views` of each example, those of one example together; the same options always give the same views.

    A view has the example's query, tags and targets in their order, an id with `~` and its number behind, and
    an image_id of its own pixels; of its `meta` the data set's own boxes are left out. Raises DataError for
    wrong options, and on access for an example whose gold answer is not made from its masks.
    """

    def __init__(self, examples: Sequence[Example], options: Mapping[str, object]) -> None:
        try:
            self.options = Augmentation(**options)  # type: ignore[arg-type]  # checked where it is built
        except TypeError as error:
            raise DataError(f'augment is {{"views": 8}} and other options, not {options!r}') from error
        self.made_of = (examples,)

    def __len__(self) -> int:
        return len(self.made_of[0]) * self.options.views

    def example(self, place: int) -> Example:
        index, view = divmod(place, self.options.views)
        example = self.made_of[0][index]
        if spoken := [key for key in OF_ONE_FRAME if key in example.meta]:
            raise DataError(f"augment cannot change {example.id}: its {spoken[0]} would no longer fit the image")
        if view == 0:
            return example
        return view_of(example, view, self.options)


def view_of(example: Example, view: int, options: Augmentation) -> Example:
    """One view: the same window of image, targets and ignored pixels, mirrored together or not at all."""
    draw = np.random.default_rng([options.seed, view, *example.id.encode(errors="replace")])
    window = _window(example, options.crop, draw)
    step = -1 if draw.random() < 0.5 and options.flip else 1
    factors = draw.uniform(1 - options.light, 1 + options.light, size=(2, 3))
    factors = factors[0, :1] * factors[1]
    pixels = np.asarray(example.image)[window][:, ::step] * factors
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return replace(
        example,
        id=f"{example.id}~{view}",
        image_id=content_id(image),
        image=image,
        targets=np.ascontiguousarray(example.targets[:, *window][..., ::step]),
        ignore=None if example.ignore is None else np.ascontiguousarray(example.ignore[window][:, ::step]),
        meta={key: value for key, value in example.meta.items() if key != "boxes_xyxy"},
    )


def _window(example: Example, crop: float, draw: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random crop that holds every target whole."""
    width, height = example.image.size
    middle = (width // 2, height // 2, width // 2 + 1, height // 2 + 1)
    x1, y1, x2, y2 = (int(side) for side in mask_to_box(example.truth) or middle)
    left, top, right, bottom = draw.uniform(0, crop, size=4) * (width, height, width, height)
    rows = slice(min(round(top), y1), max(height - round(bottom), y2))
    return rows, slice(min(round(left), x1), max(width - round(right), x2))


class Own(Sequence[Example]):
    """Somebody's examples, each checked when it is read. Raises DataError that names the data set and the place."""

    def __init__(self, name: str, examples: Any) -> None:
        if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
            raise DataError(
                f"the data set {name} is a {type(examples).__name__}: a sequence of segrl.types.Example is wanted"
            )
        self._name, self._examples = name, examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            example = self._examples[index]
        except SegrlError:
            raise
        except Exception as error:
            raise DataError(f"{self._name}: example {index}: {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(example, Example):
            raise DataError(f"{self._name}: example {index} is a {type(example).__name__}, no segrl.types.Example")
        return example
