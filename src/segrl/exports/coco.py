"""COCO: one JSON file with an annotation per object, and run lengths as JSON Lines.

`coco`: the query is the category.

    {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 197.0,
     "bbox": [263.0, 216.0, 21.0, 15.0], "segmentation": [[267.0, 229.0, 265.0, 226.0, …]], "score": 0.91}

pycocotools makes the very same mask of the polygons. `score` is how sure the mask is: of a vote the share of the
samples that hold it, else the IoU that the segmenter expects, where it gives one. An image where nothing was found
stands in `images` without annotations. `licenses` is there and empty because datumaro's reader of large files asks
for it. Nothing is held in memory but one record.

`rle`: a line for each answer that could be read, which `datasets.load("jsonl")` reads.

    {"image": "/data/photos/a/dog.jpg", "query": "the dog",
     "masks": [{"size": [480, 640], "counts": "…"}], "tags": {"status": "ok"}, "scores": [0.91]}

Masks are COCO's compressed run lengths, one per object. No masks say that nothing is there, so an
answer that could not be read has no line: it stands in results.jsonl alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segrl.exports.base import Export, Found, ImageRecord
from segrl.files import json_line, write_atomically
from segrl.masks import from_rle, mask_to_box, mask_to_polygons


class Coco(Export):
    """`coco.json`."""

    name = "coco"

    @property
    def place(self) -> Path:
        return self.out / "coco.json"

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        write_atomically(self.place, self._pieces(records))
        return self.place

    def _pieces(self, records: Iterable[ImageRecord]) -> Iterator[str]:
        categories = [{"id": i + 1, "name": query, "supercategory": ""} for query, i in self.class_of.items()]
        yield '{"info": {"description": "made by segrl"},\n"licenses": [],\n'
        yield f'"categories": {json.dumps(categories)},\n"images": ['
        yield from _separated(_image(i, record) for i, record in enumerate(records, 1))
        yield '],\n"annotations": ['
        yield from _separated(self._annotations(records))
        yield "]}\n"

    def _annotations(self, records: Iterable[ImageRecord]) -> Iterator[dict[str, Any]]:
        number = 0
        for image_id, record in enumerate(records, 1):
            for found in record.answers:
                for annotation in _objects(found):
                    number += 1
                    category = self.class_of[found.query] + 1
                    yield {"id": number, "image_id": image_id, "category_id": category, **annotation}


def _image(image_id: int, record: ImageRecord) -> dict[str, Any]:
    width, height = record.size_wh
    return {"id": image_id, "file_name": record.file_name, "width": width, "height": height}


def _objects(found: Found) -> Iterator[dict[str, Any]]:
    for rle, score in found.objects():
        mask = from_rle(rle)
        box = mask_to_box(mask)
        if box is None:
            continue
        x1, y1, x2, y2 = box
        yield {
            "iscrowd": 0,
            "area": float(mask.sum()),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": mask_to_polygons(mask),
            **({} if score is None else {"score": score}),
        }


def _separated(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield (",\n" if i else "\n") + json.dumps(row)


class RleLines(Export):
    """`rle.jsonl`."""

    name = "rle"

    @property
    def place(self) -> Path:
        return self.out / "rle.jsonl"

    def finish(self, records: Iterable[ImageRecord]) -> Path:
        rows = (
            {
                "image": record.image,
                "query": found.query,
                "masks": list(found.masks),
                "tags": {"status": found.status.value},
                **({} if found.confidences is None else {"scores": list(found.confidences)}),
            }
            for record in records
            for found in record.answers
            if not found.status.is_failure
        )
        write_atomically(self.place, map(json_line, rows))
        return self.place
