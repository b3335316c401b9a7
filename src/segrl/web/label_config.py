"""What a Label Studio project wants: its labels, the words to look for, and where the image stands in a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast
from xml.etree import ElementTree

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


def read(config: str) -> list[Wanted]:
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
