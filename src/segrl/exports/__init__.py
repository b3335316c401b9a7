"""Results as files that other tools read: one format per file, all behind `Export`.

export = exports.get("coco")(out, queries)
export.add(record); …          # what belongs to one image
export.finish(records)         # what belongs to all
"""

from __future__ import annotations

from segrl.errors import SegrlError
from segrl.exports.base import (
    Export,
    FileState,
    Found,
    ImageRecord,
    Style,
    by_doubt,
    least_confidence,
    query_folder,
    record,
)
from segrl.exports.coco import Coco, RleLines
from segrl.exports.label_studio import LabelStudio
from segrl.exports.labelme import LabelMe
from segrl.exports.pictures import Cutout, Overlay, Png
from segrl.exports.yolo import Yolo
from segrl.text import did_you_mean

__all__ = [
    "Export",
    "FileState",
    "Found",
    "ImageRecord",
    "Style",
    "by_doubt",
    "get",
    "least_confidence",
    "names",
    "query_folder",
    "record",
]

_EXPORTS: dict[str, type[Export]] = {
    one.name: one for one in (Coco, Yolo, RleLines, Png, LabelMe, LabelStudio, Overlay, Cutout)
}


def names() -> tuple[str, ...]:
    """The formats there are."""
    return tuple(_EXPORTS)


def get(name: str) -> type[Export]:
    """The export of that name. Raises SegrlError naming the nearest one there is."""
    if name not in _EXPORTS:
        raise SegrlError(f"no format {name!r}: {did_you_mean(name, _EXPORTS)} There are {', '.join(_EXPORTS)}")
    return _EXPORTS[name]
