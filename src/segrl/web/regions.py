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

from segrl import brush_rle
from segrl.masks import mask_to_box, mask_to_polygons
from segrl.types import ORIGINAL, Box, MaskPrompt, Point
from segrl.web.errors import invalid
from segrl.web.schemas import MAX_POINTS

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


MAX_CONFIG = 1_000_000
"""Characters of a configuration."""


def read_config(config: str, *, max_tags: int = 20_000, max_depth: int = 32) -> list[Wanted]:
    """The labels of a configuration that a mask can serve, each of the control that it stands in; in linear time.

    Raises Refused(422) if there are none, for what is no XML, and for more tags or deeper ones than that.
    """
    if len(config) > MAX_CONFIG or config.count("<") > 2 * max_tags:
        raise invalid(f"label_config: more than {max_tags} tags")
    if "<!" in config.replace("<!--", ""):
        raise invalid("label_config: declarations are not read")
    try:
        images, controls = _controls(config, max_depth)
    except (ElementTree.ParseError, ValueError) as error:
        raise invalid("label_config: not valid XML") from error
    found = [wanted for control, labels in controls for wanted in _labels(control, labels, images)]
    if not found:
        raise invalid("label_config: no BrushLabels, PolygonLabels or RectangleLabels on an Image")
    return found


Tag = ElementTree.Element


def _controls(config: str, max_depth: int) -> tuple[dict[str, str], list[tuple[Tag, list[Tag]]]]:
    """The images (the key of a task's data by the name of the tag), and every control with the labels in it."""
    parser: ElementTree.XMLPullParser = ElementTree.XMLPullParser(("start", "end"))
    parser.feed(config)
    parser.close()
    images: dict[str, str] = {}
    controls: list[tuple[Tag, list[Tag]]] = []
    within: list[list[Tag]] = []
    depth = 0
    for event, tag in cast("Iterator[tuple[str, Tag]]", parser.read_events()):
        is_control = str(tag.tag).lower() in KINDS
        if event == "end":
            depth -= 1
            if is_control:
                within.pop()
            continue
        depth += 1
        if depth > max_depth:
            raise invalid(f"label_config: tags nest deeper than {max_depth}")
        if tag.tag == "Image":
            images[tag.get("name", "")] = tag.get("value", "").lstrip("$")
        elif tag.tag == "Label" and within:
            within[-1].append(tag)
        if is_control:
            within.append([])
            controls.append((tag, within[-1]))
    return images, controls


def _labels(control: Tag, labels: list[Tag], images: dict[str, str]) -> Iterator[Wanted]:
    kind, to_name = cast("Kind", str(control.tag).lower()), control.get("toName", "")
    if not images.get(to_name):
        return
    for label in labels:
        value = label.get("value", "")
        query = label.get("hint", "").strip() or value.strip()
        if query:
            yield Wanted(kind, control.get("name", ""), to_name, value, query, images[to_name])


def region(wanted: Wanted, mask: np.ndarray, tolerance_px: float = 0.0) -> dict[str, Any] | None:
    """A `(H, W)` bool mask as a region of the label's kind; None for an empty one.

    A polygon region is one ring: of a mask in several parts it takes the largest, simplified within `tolerance_px`
    pixels (`contours.simplify`) so that a person can edit it; 0 keeps every corner.
    """
    box = mask_to_box(mask)
    if box is None:
        return None
    height, width = mask.shape
    if wanted.kind == "brushlabels":
        value: dict[str, Any] = {"format": "rle", "rle": brush_rle.encode(mask)}
    elif wanted.kind == "polygonlabels":
        value = _polygon(mask, tolerance_px)
    else:
        value = _rectangle(mask, box)
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


def _polygon(mask: np.ndarray, tolerance_px: float) -> dict[str, Any]:
    height, width = mask.shape
    rings = [np.reshape(ring, (-1, 2)) for ring in mask_to_polygons(mask, tolerance_px)]
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
    if isinstance(drawn, list) and len(drawn) > MAX_POINTS:
        raise invalid(f"params.context.result: more than {MAX_POINTS} regions")
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
