"""LabelMe: one JSON file beside each image, as LabelMe saves it and `segrl segment --format labelme` writes it.

One shape of `labelme/a.json` (`imagePath` leads from the file to the image):

    {"label": "the dog", "points": [[31.5, 20.5], …], "group_id": 1, "shape_type": "polygon", "flags": {}}

and as an example: query "the dog" (`query` is "{category}"), a target per object of that label in the image.
Shapes of one label and one `group_id` are the parts of one object. Polygons, circles and masks are drawn;
rectangles are boxes, and points and lines have no area (`without_mask` says what they are, see `annotated`).
A file without shapes gives no example, with `negatives` one for each label of the other files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segrl.datasets.annotated import AnnotatedImages, LabelledImage, WithoutMask, checked, per_label, size_hw
from segrl.datasets.drawing import Draw, Instance, ellipse, outlined_by_pillow, pasted, union
from segrl.errors import DataError
from segrl.files import legible, read_json
from segrl.masks import check_corners
from segrl.types import Box


class LabelMe(AnnotatedImages):
    """The objects of all JSON files under `root`, by file name. query, negatives: see the module.

    without_mask: see `annotated`. Raises DataError for a file that is no
    LabelMe file, an image that is missing, and a shape that cannot be drawn.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        query: str = "{category}",
        negatives: bool = False,
        without_mask: WithoutMask = "refuse",
    ) -> None:
        folder = Path(root)
        files = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
        if not files:
            raise DataError(f"{folder} holds no JSON file: LabelMe saves one beside each image")
        images = [_labelled(path, legible(path.relative_to(folder).with_suffix("").as_posix())) for path in files]
        rows = per_label(images, query, negatives)
        super().__init__(rows, str(folder), without_mask=without_mask)


def _labelled(path: Path, id: str) -> LabelledImage:
    data = checked(read_json(path), str(path), "shapes", "imagePath")
    if not isinstance(data["shapes"], list):
        raise DataError(f"{path} is no LabelMe file: its shapes are no list")
    hw = size_hw(data, str(path), "imageHeight", "imageWidth")
    image = path.parent / str(data["imagePath"]).replace("\\", "/")  # LabelMe on Windows
    groups: dict[Any, list[tuple[int, Mapping[str, Any]]]] = {}
    for place, shape in enumerate(data["shapes"]):
        checked(shape, f"shape {place} of {path}, counted from 0,", "label", "points")
        group = shape.get("group_id")
        key = place if group is None else (str(shape["label"]), str(group))
        groups.setdefault(key, []).append((place, shape))
    objects = []
    for shapes in groups.values():
        objects.append((str(shapes[0][1]["label"]), _instance(shapes, hw, path)))
    return LabelledImage(id, image, tuple(objects))


def _instance(shapes: list[tuple[int, Mapping[str, Any]]], hw: tuple[int, int], path: Path) -> Instance:
    """The shapes of one object; without a mask only where none of them has one."""
    parts: list[Draw] = []
    box: Box | None = None
    for place, shape in shapes:
        name = f"shape {place} of {path}"
        corners = _numbers(shape["points"], name)
        check_corners([corners], hw, name)
        draw = _draw(shape, corners)
        if draw is not None:
            parts.append(draw)
        elif shape.get("shape_type") == "rectangle" and len(corners) == 4:
            xs, ys = sorted(corners[::2]), sorted(corners[1::2])
            box = (xs[0], ys[0], xs[1], ys[1])
    number = shapes[0][0]
    if not parts:
        return Instance(number, None, box, hw)
    return Instance(number, parts[0] if len(parts) == 1 else partial(union, tuple(parts)), None, hw)


def _draw(shape: Mapping[str, Any], corners: list[float]) -> Draw | None:
    """How a shape is drawn; None for one that has no mask."""
    kind = shape.get("shape_type", "polygon")
    if kind == "polygon" and len(corners) >= 6:
        return partial(outlined_by_pillow, corners)
    if kind == "circle" and len(corners) == 4:
        centre = (corners[0], corners[1])
        radius = math.dist(centre, corners[2:])
        return partial(ellipse, centre, (radius, radius), 0.0)
    if kind == "mask" and len(corners) == 4 and isinstance(shape.get("mask"), str):
        return partial(pasted, shape["mask"], (corners[0], corners[1]))
    return None


def _numbers(points: Any, name: str) -> list[float]:
    """x, y, x, y, … of a list of points. Raises DataError."""
    try:
        return [float(value) for x, y in points for value in (x, y)]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} has points that are no list of [x, y]") from error
