"""A COCO JSON file: one's own annotations, or what CVAT, FiftyOne or Label Studio export of them.

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
they become `Example.ignore`, as COCO's evaluation treats them, unless `per` is "annotation" or `crowds` is
"targets" (CVAT marks every mask that was painted so). An image without annotations gives no example, except
per image, where it says that nothing is there, and with `negatives`, where it says so of every category.
Annotations without a mask are refused, or what `without_mask` says (see `annotated`); of several that answer
a query, those that enclose no pixel are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from segrl.datasets.annotated import Annotated, AnnotatedImages, WithoutMask, asked, checked, size_hw
from segrl.datasets.drawing import Instance
from segrl.errors import DataError
from segrl.files import read_json

Per = Literal["category", "annotation", "image"]


class CocoJson(AnnotatedImages):
    """The examples of `annotations` (a file under root, or absolute), images in the order of the file.

    images: the folder of the image files, under root. per, query, query_field, crowds, negatives: see the
    module. without_mask: see `annotated`. Raises DataError for a file that
    is no COCO JSON, an entry that lacks a key which is needed, an annotation without its image or category,
    images that are missing, and annotations that cannot be drawn.
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
        crowds: Literal["ignore", "targets"] = "ignore",
        negatives: bool = False,
        without_mask: WithoutMask = "refuse",
    ) -> None:
        if per not in _MAKERS:
            raise DataError(f"per is {', '.join(_MAKERS)}, not {per!r}")
        if crowds not in ("ignore", "targets"):
            raise DataError(f"crowds is ignore or targets, not {crowds!r}")
        path = Path(root) / annotations
        coco = _Coco(read_json(path), path, Path(root) / images, query, query_field, crowds == "ignore", negatives)
        rows = list(_MAKERS[per](coco))
        if not rows and any(a.get("iscrowd") for some in coco.annotations.values() for a in some):
            raise DataError(f"{path} holds no annotation that is not a crowd: crowds: targets reads them as objects")
        super().__init__(rows, str(path), without_mask=without_mask)


class _Coco:
    """The file, indexed: `images` by id in the order of the file, `annotations` by image."""

    def __init__(
        self, data: Any, path: Path, folder: Path, query: str, query_field: str, has_crowds: bool, negatives: bool
    ) -> None:
        if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
            raise DataError(f"{path} is no COCO JSON: it needs images and annotations")
        self.path, self.folder, self.query, self.query_field = path, folder, query, query_field
        self.has_crowds, self.negatives = has_crowds, negatives
        self.categories = {_id(c): str(c["name"]) for c in self._entries(data, "categories", "id", "name")}
        self.images: dict[Any, Mapping[str, Any]] = {}
        for image in self._entries(data, "images", "id", "file_name"):
            if self.images.setdefault(_id(image), image)["file_name"] != image["file_name"]:
                raise DataError(f"{path} gives two files the image id {image['id']}")
        self.annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in self._entries(data, "annotations", "id", "image_id"):
            if _id(annotation, "image_id") not in self.images:
                raise DataError(f"annotation {annotation['id']} of {path} has no image {annotation['image_id']}")
            self.annotations.setdefault(annotation["image_id"], []).append(annotation)

    def _entries(self, data: Mapping[str, Any], group: str, *keys: str) -> Iterator[Mapping[str, Any]]:
        entries = data.get(group) or ()
        if not isinstance(entries, list | tuple):
            raise DataError(f"{self.path} is no COCO JSON: its {group} are no list")
        for place, entry in enumerate(entries):
            name = f"{self.path}: entry {place} of {group}, counted from 0,"
            if not isinstance(checked(entry, name, *keys)["id"], int | str):
                raise DataError(f"{name} has an id that is neither number nor text")
            yield entry

    def row(self, image: Mapping[str, Any], suffix: str, query: str, chosen: list[Mapping[str, Any]]) -> Annotated:
        """The annotations of one query, crowds apart."""
        hw = size_hw(image, f"image {image['id']} of {self.path}")
        targets: list[Instance] = []
        crowded: list[Instance] = []
        for annotation in chosen:
            instance = Instance.from_coco(annotation, hw, f"annotation {annotation['id']} of {self.path}")
            (crowded if self.is_crowd(annotation) else targets).append(instance)
        file = self.folder / str(image["file_name"])
        return Annotated(f"{image['id']}{suffix}", file, query, tuple(targets), tuple(crowded))

    def is_crowd(self, annotation: Mapping[str, Any]) -> bool:
        return self.has_crowds and bool(annotation.get("iscrowd"))

    def per_category(self) -> Iterator[Annotated]:
        for image_id, image in self.images.items():
            groups: dict[Any, list[Mapping[str, Any]]] = {id: [] for id in self.categories} if self.negatives else {}
            for annotation in self.annotations.get(image_id, ()):
                checked(annotation, f"annotation {annotation['id']} of {self.path}", "category_id")
                category = _id(annotation, "category_id")
                if category not in self.categories:
                    raise DataError(f"{self.path} has no category {category} (image {image_id})")
                groups.setdefault(category, []).append(annotation)
            for category, chosen in sorted(groups.items(), key=lambda group: (str(type(group[0])), group[0])):
                if not chosen or not all(map(self.is_crowd, chosen)):
                    yield self.row(image, f"-{category}", asked(self.query, self.categories[category]), chosen)

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


def _id(entry: Mapping[str, Any], key: str = "id") -> int | str:
    """An id, which may be any JSON value in a file that is none; those that are no number or text equal no other."""
    value = entry[key]
    return value if isinstance(value, int | str) else repr(value)


_MAKERS = {"category": _Coco.per_category, "annotation": _Coco.per_annotation, "image": _Coco.per_image}
