"""Label Studio's JSON export: what annotators drew, painted or corrected there.

One region of a task (lengths are percent of the image's sides):

    {"type": "polygonlabels", "original_width": 640, "original_height": 480, "image_rotation": 0,
     "value": {"points": [[12.5, 40.1], …], "polygonlabels": ["the dog"]}}

and as an example: query "the dog" (`query` is "{category}"), a target per region of that label in the image.
Brush, polygon and ellipse regions are drawn; rectangles are boxes, which have no mask (`without_mask`, see
`annotated`); key points, relations, texts and choices are passed over. Of several annotations of a task the
one marked as ground truth is read, else the one that was changed last; cancelled ones never are, and
predictions neither. An annotation without regions gives no example, with `negatives` one for each label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from segrl import brush_rle
from segrl.datasets.annotated import AnnotatedImages, LabelledImage, WithoutMask, checked, per_label, size_hw
from segrl.datasets.drawing import Instance, ellipse, scaled
from segrl.errors import DataError
from segrl.files import read_json
from segrl.images import IMAGE_SUFFIXES

DRAWN = ("brushlabels", "polygonlabels", "ellipselabels", "rectanglelabels", "brush", "polygon", "ellipse", "rectangle")
"""Types of regions that are objects; those without labels of their own get them from a region of the same id."""

_UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


class LabelStudio(AnnotatedImages):
    """The annotated tasks of `file` (under root, or absolute), in its order.

    images: the folder of the image files, under root; a task's image is looked for there by its path, by its
    name, and without what Label Studio puts before the name of an upload. image_key: where a task's data has the
    image; by default its only text that names an image. query, negatives: see the module. without_mask: see
    `annotated`. Raises DataError for a file that is no JSON export, an image
    that is missing, a turned image and a region that cannot be drawn.
    """

    def __init__(
        self,
        root: Path | str,
        file: str = "export.json",
        *,
        images: str = "images",
        image_key: str | None = None,
        query: str = "{category}",
        negatives: bool = False,
        without_mask: WithoutMask = "refuse",
    ) -> None:
        path, folder = Path(root) / file, Path(root) / images
        tasks = read_json(path)
        if not isinstance(tasks, list):
            raise DataError(f"{path} is no JSON export of Label Studio: it is no list of tasks")
        labelled = []
        for place, task in enumerate(tasks):
            name = f"task {place} of {path}, counted from 0,"
            checked(task, name, "data")
            regions = _regions(task, name)
            if regions is not None:
                image = find_image(_address(task["data"], image_key, name), folder)
                labelled.append(LabelledImage(str(task.get("id", place)), image, tuple(_objects(regions, name))))
        if not labelled:
            raise DataError(
                f"{path} holds no annotated task: export as JSON, not JSON-MIN, after submitting annotations"
            )
        super().__init__(per_label(labelled, query, negatives), str(path), without_mask=without_mask)


def _regions(task: Mapping[str, Any], name: str) -> Sequence[Any] | None:
    """The regions of the annotation that counts; None for a task that nobody annotated."""
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(one, Mapping) for one in annotations):
        raise DataError(f"{name} has annotations that are no list")
    kept = [one for one in annotations if not one.get("was_cancelled")]
    if not kept:
        return None
    chosen = max(kept, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at") or "")))
    regions = chosen.get("result")
    if not isinstance(regions, list):
        raise DataError(f"{name} has an annotation without a result")
    return regions


def _address(data: Any, image_key: str | None, name: str) -> str:
    """The path or address of a task's image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, Mapping) else {}
    if image_key is not None:
        if image_key not in texts:
            raise DataError(f"{name} has no text {image_key!r} in its data; it has {', '.join(texts) or 'none'}")
        return texts[image_key]
    of_images = [key for key, value in texts.items() if Path(_path_of(value)).suffix.lower() in IMAGE_SUFFIXES]
    if len(of_images) != 1:
        raise DataError(f"{name} names {len(of_images)} images in its data: image_key says which ({', '.join(texts)})")
    return texts[of_images[0]]


def _path_of(address: str) -> str:
    """The path within an address: `/data/local-files/?d=photos/a.jpg` names its file behind `d=`."""
    try:
        split = urlsplit(address)
    except ValueError:
        return ""
    local = parse_qs(split.query).get("d")
    return local[0] if local else unquote(split.path)


def find_image(address: str, folder: Path) -> Path:
    """The file under `folder` that a task's address names; where there is none, the path that was looked for first."""
    parts = [part for part in _path_of(address).split("/") if part not in ("", ".", "..")]
    bare = _UPLOAD.sub("", parts[-1], count=1) if parts else ""
    below = [folder.joinpath(*parts[i:]) for i in range(len(parts))]
    candidates = [*below, folder / bare] if parts else []
    return next((path for path in candidates if path.is_file()), folder / bare)


def _objects(regions: Sequence[Any], name: str) -> list[tuple[str, Instance]]:
    """(label, object) of each region that is one."""
    labels: dict[Any, str] = {}
    shapes: dict[Any, Mapping[str, Any]] = {}
    for place, region in enumerate(regions):
        checked(region, f"{name} region {place}", "type")
        value = region.get("value")
        if not isinstance(value, Mapping):
            continue
        key = str(region.get("id", place))
        named = value.get(region["type"]) if isinstance(region["type"], str) else None
        if isinstance(named, list) and named and region["type"].endswith("labels"):
            labels[key] = str(named[0])
        if region["type"] in DRAWN:
            shapes.setdefault(key, region)
    found = []
    for key, region in shapes.items():
        if key not in labels:
            raise DataError(f"{name} region {key} has no label")
        found.append((labels[key], _instance(region, f"{name} region {key}", key)))
    return found


def _instance(region: Mapping[str, Any], name: str, key: str) -> Instance:
    hw = size_hw(region, name, "original_height", "original_width")
    if region.get("image_rotation"):
        raise DataError(f"{name} was drawn on an image turned by {region['image_rotation']}°: turn it back and export")
    value, kind = region["value"], str(region["type"]).removesuffix("labels")
    try:
        if kind == "brush":
            return Instance(key, partial(brush_rle.decode, brush_rle.as_bytes(value["rle"], name)), None, hw)
        if kind == "polygon":
            points = [float(number) / 100 for x, y in value["points"] for number in (x, y)]
            return Instance(key, [scaled(points, hw)], None, hw)
        x, y = (float(value[side]) / 100 for side in ("x", "y"))
        if kind == "ellipse":
            radii = float(value["radiusX"]) / 100 * hw[1], float(value["radiusY"]) / 100 * hw[0]
            centre = (x * hw[1], y * hw[0])
            return Instance(key, partial(ellipse, centre, radii, float(value.get("rotation") or 0)), None, hw)
        width, height = float(value["width"]) / 100, float(value["height"]) / 100
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} has no values of a {kind} region: {error!r:.80}") from error
    return _rectangle(key, scaled([x, y, width, height], hw), value.get("rotation") or 0, hw, name)


def _rectangle(key: str, xywh: list[float], degrees: Any, hw: tuple[int, int], name: str) -> Instance:
    """A rectangle, which Label Studio turns clockwise about its first corner; all in pixels."""
    x, y, width, height = xywh
    if not isinstance(degrees, int | float) or not math.isfinite(degrees):
        raise DataError(f"{name} has a rotation that is no number")
    if degrees == 0:
        return Instance(key, None, (x, y, x + width, y + height), hw)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    ring = [value for u, v in corners for value in (x + u * cos - v * sin, y + u * sin + v * cos)]
    return Instance(key, [ring], None, hw, is_box=True)
