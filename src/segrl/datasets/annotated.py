"""Images whose objects people drew, as COCO, LabelMe, YOLO and Label Studio keep them: what these readers share.

An object without a mask (only a box, an empty segmentation, a polygon wholly outside its image) is never read
as "nothing there". `without_mask` says what it is:

    refuse    an error that counts them (the default)
    box       its filled box is the truth, and the example's `meta["truth"]` is "box"
    drop      it is left out, and with it an example that has no other object
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrl.datasets.drawing import Instance, checked_box
from segrl.datasets.rows import Rows
from segrl.errors import DataError
from segrl.masks import check_segmentation
from segrl.types import Example

WithoutMask = Literal["refuse", "box", "drop"]


@dataclass(frozen=True, slots=True)
class Annotated:
    """One query of one image with the annotations that answer it; crowds are pixels to ignore."""

    id: str
    image: Path
    query: str
    targets: tuple[Instance, ...]
    crowds: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with its labelled objects, in the order of the file."""

    id: str
    image: Path
    objects: tuple[tuple[str, Instance], ...]


class AnnotatedImages(Rows[Annotated]):
    """Examples of annotated objects. file: what they come from, for messages.

    Every annotation is checked here, before a run depends on it. Raises DataError naming the first that cannot
    be drawn, and the count of those without a mask (`without_mask`).
    """

    def __init__(
        self,
        rows: Iterable[Annotated],
        file: str,
        *,
        without_mask: WithoutMask = "refuse",
    ) -> None:
        if without_mask not in ("refuse", "box", "drop"):
            raise DataError(f"without_mask is refuse, box or drop, not {without_mask!r}")
        super().__init__(settled(list(rows), without_mask, file), file)

    def read(self, row: Annotated) -> Example:
        """See Rows. Raises DataError where no annotation of a query has a pixel."""
        canvas = self.canvas(row.image)
        targets, boxes = canvas.instances(row.targets)
        if row.targets and not len(targets):
            raise DataError(f"no annotation of {row.query!r} in {row.image} ({_list(row.targets)}) encloses a pixel")
        crowds, _ = canvas.instances(row.crowds)
        truth = {"truth": "box"} if any(target.is_box for target in row.targets) else {}
        return Example(
            id=row.id,
            image_id=canvas.content_id,
            image=canvas.image,
            query=row.query,
            targets=targets,
            ignore=np.logical_or.reduce(crowds) if len(crowds) else None,
            meta={"boxes_xyxy": boxes, **truth},
        )


def settled(rows: Sequence[Annotated], without_mask: WithoutMask, file: str) -> list[Annotated]:
    """The rows with every annotation checked, and those without a mask as `without_mask` says. Raises DataError."""
    lacking: list[str] = []
    made = []
    for row in rows:
        targets = []
        for target in row.targets:
            name = f"annotation {target.id} of {row.image.name} in {file}"
            if _has_mask(target, name) and not target.is_box:
                targets.append(target)
                continue
            lacking.append(name)
            if without_mask == "box":
                targets.append(_boxed(target, name))
        for crowd in row.crowds:
            _has_mask(crowd, f"annotation {crowd.id} of {row.image.name} in {file}")
        if targets or not row.targets:
            made.append(replace(row, targets=tuple(targets)))
    if lacking and without_mask == "refuse":
        total = sum(len(row.targets) for row in rows)
        raise DataError(
            f"{len(lacking)} of {total} annotations have no mask, the first is {lacking[0]}: "
            "without_mask: box takes their boxes as the truth, without_mask: drop leaves them out"
        )
    return made


def _has_mask(instance: Instance, name: str) -> bool:
    segmentation, hw = instance.segmentation, instance.image_hw
    if segmentation is None or callable(segmentation):
        return segmentation is not None
    return hw is not None and check_segmentation(segmentation, hw, name)


def _boxed(instance: Instance, name: str) -> Instance:
    if instance.is_box and instance.segmentation is not None:
        return instance
    if instance.box_xyxy is None or instance.image_hw is None:
        raise DataError(f"{name} has neither a mask nor a box: without_mask: drop leaves it out")
    checked_box(instance.box_xyxy, instance.image_hw, name)
    return replace(instance, segmentation=None, is_box=True)


def _list(instances: Sequence[Instance]) -> str:
    return ", ".join(str(instance.id) for instance in instances[:3]) + (", …" if len(instances) > 3 else "")


def per_label(
    images: Sequence[LabelledImage], query: str, negatives: bool, labels: Sequence[str] = ()
) -> Iterator[Annotated]:
    """One row for each image and label on it, labels in the order in which they come first in the image.

    query: with `{category}` for the label. negatives: also a row without targets for each of `labels`, and of the
    labels of other images, that an image does not have, which says "nothing there".
    """
    every = list(dict.fromkeys([*labels, *(label for image in images for label, _ in image.objects)]))
    for image in images:
        present = list(dict.fromkeys(label for label, _ in image.objects))
        absent = [label for label in every if label not in present] if negatives else []
        for label in (*present, *absent):
            targets = tuple(instance for one, instance in image.objects if one == label)
            yield Annotated(f"{image.id}-{every.index(label)}", image.image, asked(query, label), targets)


def asked(query: str, label: str) -> str:
    """A query with the label in the place of `{category}`; nothing else in braces means anything."""
    return query.replace("{category}", label)


def checked(entry: Any, name: str, *keys: str) -> Mapping[str, Any]:
    """An entry of a JSON file, which is called `name`. Raises DataError naming the first of `keys` that it lacks."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{name} is no object with {', '.join(keys)}: {entry!r:.80}")
    for key in keys:
        if entry.get(key) is None:
            raise DataError(f"{name} has no {key}")
    return entry


def size_hw(entry: Mapping[str, Any], name: str, height: str = "height", width: str = "width") -> tuple[int, int]:
    """The (height, width) that an entry gives under these keys. Raises DataError for sides that are no pixels."""
    checked(entry, name, height, width)
    try:
        hw = (int(entry[height]), int(entry[width]))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} has no {height} and {width} that are whole numbers") from error
    if not 0 < min(hw) <= max(hw) < 2**31:
        raise DataError(f"{name} has a size of {hw[1]}×{hw[0]} pixels")
    return hw
