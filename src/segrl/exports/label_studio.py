"""Label Studio: `label-studio/tasks.json` to import, with pre-annotations, and the labelling interface that shows them.

    {"data": {"image": "/data/local-files/?d=a/dog.jpg"},
     "predictions": [{"model_version": "segrl-0.1.0", "score": 0.91, "result": [
        {"id": "…", "type": "polygonlabels", "from_name": "label", "to_name": "image", "score": 0.91,
         "original_width": 640, "original_height": 480, "image_rotation": 0,
         "value": {"points": [[6.1, 13.5], …], "closed": true, "polygonlabels": ["the dog"]}}]}]}

Points are percent of width and height. One region for each connected part of an object, with few points unless exact
polygons are asked for. Images are named as Label Studio's local storage does, under the folder that was segmented
(`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`). An image of which an answer could not be read has no prediction for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from segrl import __version__
from segrl.contours import EDITABLE_PX, edge_rings
from segrl.exports.base import Export, Found, ImageRecord
from segrl.files import ESCAPED, write_atomically
from segrl.masks import from_rle


class LabelStudio(Export):
    """`label-studio/tasks.json` and `label-studio/interface.xml`."""

    name = "label-studio"

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        write_atomically(self.place / "interface.xml", interface(self.queries))
        write_atomically(self.place / "tasks.json", self._pieces(records))
        return self.place

    def _pieces(self, records: Iterable[ImageRecord]) -> Iterator[str]:
        yield "["
        for i, record in enumerate(records):
            yield (",\n" if i else "\n") + json.dumps(self._task(record), ensure_ascii=False)
        yield "\n]\n"

    def _task(self, record: ImageRecord) -> dict[str, Any]:
        tolerance_px = 0.0 if self.style.exact_polygons else EDITABLE_PX
        regions = [
            region | {"id": f"{self.class_of[found.query]}-{number}"}
            for found in record.answers
            for number, region in enumerate(_regions(found, record.size_wh, tolerance_px))
        ]
        scores = [region["score"] for region in regions if "score" in region]
        prediction: dict[str, Any] = {"model_version": f"segrl-{__version__}", "result": regions}
        if scores:
            prediction["score"] = min(scores)
        address = f"/data/local-files/?d={quote(record.file_name, errors=ESCAPED)}"
        return {"data": {"image": address}, "predictions": [prediction]}


def interface(queries: Iterable[str]) -> str:
    """The labelling interface in which these queries are labels of polygons."""
    labels = "".join(f"    <Label value={quoteattr(query)}/>\n" for query in queries)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="label" toName="image">\n{labels}  </PolygonLabels>\n</View>\n'
    )


def _regions(found: Found, size_wh: tuple[int, int], tolerance_px: float) -> Iterator[dict[str, Any]]:
    for rle, score in found.objects():
        for ring in edge_rings(from_rle(rle), tolerance_px):
            percent = (100 * ring / np.array(size_wh)).round(4)
            yield {
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": size_wh[0],
                "original_height": size_wh[1],
                "image_rotation": 0,
                "value": {"points": percent.tolist(), "closed": True, "polygonlabels": [found.query]},
                **({} if score is None else {"score": score}),
            }
