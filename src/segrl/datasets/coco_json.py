"""A COCO JSON file of one's own: instances, or one mask per query.

One annotation, as COCO's `instances_train2014.json` has it (a dog in the distance; `bbox` is x, y, width, height):

    {"id": 3007, "image_id": 98304, "category_id": 18, "iscrowd": 0, "area": 197.3,
     "bbox": [263.87, 216.88, 21.13, 15.17], "segmentation": [[267.52, 229.75, 265.6, 226.68, …]]}

and as an example, by what `per` says:

    per="category"     one example per image and category in it; query "dog" (`query` is "{category}"),
                       a target per instance
    per="annotation"   one example per annotation; its query is the annotation's own text
                       (`query_field`), its mask the one target
    per="image"        one example per image, all its annotations the targets; query as it is given

Crowd annotations (`iscrowd`, run lengths) mark pixels that hold more of a category than was counted:
they become `Example.ignore`, as COCO's evaluation treats them, unless `per` is "annotation". An image
without annotations gives no example, except per image, where it says that nothing is there.
Annotations that enclose no pixel are left out of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segrl.datasets.annotations import Instance, checked, read_json
from segrl.datasets.drawing import draw_instances
from segrl.datasets.rows import Rows
from segrl.errors import DataError
from segrl.images import content_id, read_image
from segrl.types import Example

Per = Literal["category", "annotation", "image"]


@dataclass(frozen=True, slots=True)
class Annotated:
    """One query of one image with the annotations that answer it."""

    id: str
    image: Path
    query: str
    targets: tuple[Instance, ...]
    crowds: tuple[Instance, ...] = ()


class CocoJson(Rows[Annotated]):
    """The examples of `annotations` (a file under root, or absolute), images in the order of the file.

    images: the folder of the image files, under root. per, query, query_field: see the module. sample:
    a seeded subset, see Rows. Raises DataError for a file that is no COCO JSON, an entry that lacks a key
    which is needed, an annotation without its image or category, and images that are missing.
    """

    def __init__(
        self,
        root: Path | str,
        annotations: str,
        *,
        images: str = "images",
        per: Per = "category",
        query: str = "{category}",
        query_field: str = "caption",
        sample: Mapping[str, int] | None = None,
    ) -> None:
        if per not in _MAKERS:
            raise DataError(f"per is {', '.join(_MAKERS)}, not {per!r}")
        path = Path(root) / annotations
        coco = _Coco(read_json(path), path, Path(root) / images, query, query_field)
        super().__init__(list(_MAKERS[per](coco)), f"{path} per {per}", sample)

    def read(self, row: Annotated) -> Example:
        """See Rows."""
        image = read_image(row.image)
        targets, boxes = draw_instances(row.targets, image, row.image)
        crowds, _ = draw_instances(row.crowds, image, row.image)
        return Example(
            id=row.id,
            image_id=content_id(image),
            image=image,
            query=row.query,
            targets=targets,
            ignore=np.logical_or.reduce(crowds) if len(crowds) else None,
            meta={"boxes_xyxy": boxes},
        )


class _Coco:
    """The file, indexed: `images` by id in the order of the file, `annotations` by image."""

    def __init__(self, data: Any, path: Path, folder: Path, query: str, query_field: str) -> None:
        if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
            raise DataError(f"{path} is no COCO JSON: it needs images and annotations")
        self.path, self.folder, self.query, self.query_field = path, folder, query, query_field
        self.categories = {c["id"]: str(c["name"]) for c in self._entries(data, "categories", "id", "name")}
        self.images: dict[Any, Mapping[str, Any]] = {}
        for image in self._entries(data, "images", "id", "file_name"):
            if self.images.setdefault(image["id"], image)["file_name"] != image["file_name"]:
                raise DataError(f"{path} gives two files the image id {image['id']}")
        self.annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in self._entries(data, "annotations", "id", "image_id"):
            if annotation["image_id"] not in self.images:
                raise DataError(f"annotation {annotation['id']} of {path} has no image {annotation['image_id']}")
            self.annotations.setdefault(annotation["image_id"], []).append(annotation)

    def _entries(self, data: Mapping[str, Any], group: str, *keys: str) -> Iterator[Mapping[str, Any]]:
        for place, entry in enumerate(data.get(group) or ()):
            yield checked(entry, f"{self.path}: entry {place} of {group}, counted from 0,", *keys)

    def row(self, image: Mapping[str, Any], suffix: str, query: str, chosen: list[Mapping[str, Any]]) -> Annotated:
        """The annotations of one query, crowds apart."""
        checked(image, f"image {image['id']} of {self.path}", "height", "width")
        hw = (int(image["height"]), int(image["width"]))
        return Annotated(
            f"{image['id']}{suffix}",
            self.folder / image["file_name"],
            query,
            tuple(Instance.from_coco(a, hw) for a in chosen if not a.get("iscrowd")),
            tuple(Instance.from_coco(a, hw) for a in chosen if a.get("iscrowd")),
        )

    def per_category(self) -> Iterator[Annotated]:
        for image_id, image in self.images.items():
            groups: dict[Any, list[Mapping[str, Any]]] = {}
            for annotation in self.annotations.get(image_id, ()):
                checked(annotation, f"annotation {annotation['id']} of {self.path}", "category_id")
                groups.setdefault(annotation["category_id"], []).append(annotation)
            for category, chosen in sorted(groups.items()):
                if category not in self.categories:
                    raise DataError(f"{self.path} has no category {category} (image {image_id})")
                if not all(a.get("iscrowd") for a in chosen):
                    query = self.query.format(category=self.categories[category])
                    yield self.row(image, f"-{category}", query, chosen)

    def per_annotation(self) -> Iterator[Annotated]:
        for image_id, image in self.images.items():
            for annotation in self.annotations.get(image_id, ()):
                query = annotation.get(self.query_field)
                if not isinstance(query, str) or not query.strip():
                    raise DataError(f"annotation {annotation['id']} of {self.path} has no text {self.query_field!r}")
                single = {**annotation, "iscrowd": 0}
                yield self.row(image, f"-{annotation['id']}", query.strip(), [single])

    def per_image(self) -> Iterator[Annotated]:
        if "{category}" in self.query:
            raise DataError('per="image" needs a query of its own, such as query="all the vehicles"')
        for image_id, image in self.images.items():
            yield self.row(image, "", self.query, self.annotations.get(image_id, []))


_MAKERS = {"category": _Coco.per_category, "annotation": _Coco.per_annotation, "image": _Coco.per_image}
