"""Label Studio's labels and regions: what a project wants, masks as regions, smart regions as mask prompts.

Lengths of regions are percent of the image's sides.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast
from xml.etree import ElementTree

import numpy as np

from segrl import brush
from segrl.masks import mask_to_box, mask_to_polygons
from segrl.types import ORIGINAL, Box, MaskPrompt, Point
from segrl.web.errors import invalid

Kind = Literal["brushlabels", "polygonlabels", "rectanglelabels"]
KINDS = ("brushlabels", "polygonlabels", "rectanglelabels")
"""Region types that a mask can become, by the tag's name in lower case."""


@dataclass(frozen=True)
class Wanted:
    """One label of a labelling configuration.

    kind, from_name, to_name: of its control tag. label: its value, which regions carry. query: what is
    looked for: the label's hint, which is where Label Studio keeps a description, or else its value.
    image_key: where a task's data has the image.
    """

    kind: Kind
    from_name: str
    to_name: str
    label: str
    query: str
    image_key: str


def read_config(config: str) -> list[Wanted]:
    """The labels of a configuration that a mask can serve. Raises Refused(422) if there are none."""
    if "<!" in config.replace("<!--", ""):
        raise invalid("label_config: declarations are not read")
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError) as error:
        raise invalid("label_config: not valid XML") from error
    images = {tag.get("name", ""): tag.get("value", "").lstrip("$") for tag in root.iter("Image")}
    found = [wanted for tag in root.iter() for wanted in _labels(tag, images)]
    if not found:
        raise invalid("label_config: no BrushLabels, PolygonLabels or RectangleLabels on an Image")
    return found


def _labels(tag: ElementTree.Element, images: dict[str, str]) -> Iterator[Wanted]:
    kind, to_name = str(tag.tag).lower(), tag.get("toName", "")
    if kind not in KINDS or not images.get(to_name):
        return
    for label in tag.iter("Label"):
        value = label.get("value", "")
        query = label.get("hint", "").strip() or value.strip()
        if query:
            yield Wanted(cast("Kind", kind), tag.get("name", ""), to_name, value, query, images[to_name])


def region(wanted: Wanted, mask: np.ndarray) -> dict[str, Any] | None:
    """A `(H, W)` bool mask as a region of the label's kind; None for an empty one.

    A polygon region is one ring: of a mask in several parts it takes the largest.
    """
    box = mask_to_box(mask)
    if box is None:
        return None
    height, width = mask.shape
    value = {"brushlabels": _brush, "polygonlabels": _polygon, "rectanglelabels": _rectangle}[wanted.kind](mask, box)
    return {
        "id": uuid.uuid4().hex[:10],
        "from_name": wanted.from_name,
        "to_name": wanted.to_name,
        "type": wanted.kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, wanted.kind: [wanted.label]},
    }


def _brush(mask: np.ndarray, box: Box) -> dict[str, Any]:
    return {"format": "rle", "rle": brush.encode(mask)}


def _polygon(mask: np.ndarray, box: Box) -> dict[str, Any]:
    height, width = mask.shape
    rings = [np.reshape(ring, (-1, 2)) for ring in mask_to_polygons(mask)]
    largest = max(rings, key=_area)
    return {"closed": True, "points": (largest / (width, height) * 100).tolist()}


def _area(ring: np.ndarray) -> float:
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    return abs(float((x * next_y - next_x * y).sum()))


def _rectangle(mask: np.ndarray, box: Box) -> dict[str, Any]:
    height, width = mask.shape
    x1, y1, x2, y2 = box
    sizes = {"width": (x2 - x1) / width * 100, "height": (y2 - y1) / height * 100}
    return {"x": x1 / width * 100, "y": y1 / height * 100, **sizes, "rotation": 0}


def hints(drawn: Any, image_wh: tuple[int, int]) -> tuple[MaskPrompt, str | None] | None:
    """An annotator's smart keypoints and rectangle as a mask prompt, with the label they carry; None without any.

    Raises Refused(422) for regions that cannot be read.
    """
    if not drawn:
        return None
    points: list[Point] = []
    labels: list[int] = []
    box, label = None, None
    try:
        for one in drawn:
            value = one["value"]
            x, y = _pixels(value, image_wh, "x", "y")
            if one["type"] in ("keypointlabels", "keypoint"):
                points.append((x, y))
                labels.append(1 if one.get("is_positive", True) else 0)
            elif one["type"] in ("rectanglelabels", "rectangle"):
                width, height = _pixels(value, image_wh, "width", "height")
                box = (x, y, x + width, y + height)
            label = next(iter(value.get(one["type"], [])), label)
        return (MaskPrompt(box, tuple(points), tuple(labels), ORIGINAL), label) if points or box else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid("params.context.result: not keypoints and rectangles") from error


def drawn_on(drawn: Any) -> set[str]:
    """The names of the Image tags that an annotator's regions lie on; none where they do not say."""
    regions = drawn if isinstance(drawn, list) else []
    return {str(one["to_name"]) for one in regions if isinstance(one, dict) and one.get("to_name")}


def _pixels(value: Any, image_wh: tuple[int, int], horizontal: str, vertical: str) -> tuple[float, float]:
    width, height = image_wh
    return float(value[horizontal]) / 100 * width, float(value[vertical]) / 100 * height
