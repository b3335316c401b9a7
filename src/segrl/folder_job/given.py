"""Boxes and points that are in a file, so that no policy is asked: a detection set of COCO or YOLO, or JSON Lines.

    boxes.json       COCO: images, annotations with `bbox` (x, y, width, height in pixels), categories; `segmentation`
                     is not looked at
    data.yaml        YOLO: the `labels` beside it, lines of `class x y width height` as shares of the sides, and what
                     a further number says; names of the classes in the file
    prompts.jsonl    {"image": "a/dog.jpg", "query": "the dog",
                      "prompts": [{"box_xyxy": [10, 20, 60, 70], "points_xy": [[30, 40]], "labels": [1]}]}

What is asked about an image are its categories, or queries. An entry belongs to the image whose path under what was
named it gives, or else to the one of that name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from segrl.documents import read_yaml
from segrl.errors import DataError
from segrl.folder_job.inputs import Inputs, Job
from segrl.types import ORIGINAL, RELATIVE_1000, MaskPrompt

_Entry = tuple[str, str, MaskPrompt]
"""An image's name (without suffix in YOLO), what is marked, and its mark."""


def with_prompts(inputs: Inputs, path: Path) -> Inputs:
    """The jobs that `path` has boxes or points for; their queries are what it marks.

    Raises DataError for a file that cannot be read, naming what is wrong, and where no job has an entry.
    """
    entries: dict[str, dict[str, list[MaskPrompt]]] = {}
    for name, query, prompt in _entries(path):
        entries.setdefault(name, {}).setdefault(query, []).append(prompt)
    jobs = [job for job in (_with_own(job, entries) for job in inputs.jobs) if job is not None]
    if not jobs:
        named = next(iter(entries), "nothing")
        raise DataError(f"{path} has boxes or points for none of the {len(inputs.jobs)} images, but for {named}")
    return dataclasses.replace(inputs, jobs=tuple(jobs))


def fingerprint(path: Path) -> str:
    """What tells the content of a file of prompts, with the labels of YOLO, from another one's."""
    digest = hashlib.sha256()
    for file in [path, *(_label_files(path) if path.suffix in (".yaml", ".yml") else [])]:
        digest.update(file.name.encode(errors="surrogateescape") + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _with_own(job: Job, entries: dict[str, dict[str, list[MaskPrompt]]]) -> Job | None:
    path = PurePosixPath(job.file_name)
    for name in (str(path), str(path.with_suffix("")), str(job.image), path.name, path.stem):
        if name in entries:
            prompts = {query: tuple(marks) for query, marks in entries[name].items()}
            return dataclasses.replace(job, queries=tuple(prompts), prompts=prompts)
    return None


def _entries(path: Path) -> Iterator[_Entry]:
    readers = {".json": _coco, ".jsonl": _lines, ".yaml": _yolo, ".yml": _yolo}
    if path.suffix.lower() not in readers:
        raise DataError(f"--prompts takes COCO's .json, YOLO's data.yaml or a .jsonl, not {path}")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"cannot read the prompts {path}: {error!r}") from error


def _coco(path: Path) -> Iterator[_Entry]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    images = {one["id"]: str(one["file_name"]) for one in content["images"]}
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    for one in content["annotations"]:
        x, y, width, height = map(float, one["bbox"])
        box = (x, y, x + width, y + height)
        yield images[one["image_id"]], names[one["category_id"]], MaskPrompt(box, frame=ORIGINAL)


def _yolo(path: Path) -> Iterator[_Entry]:
    names = read_yaml(path)["names"]
    for file in _label_files(path):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                place, *numbers = line.split()
                if len(numbers) not in (4, 5):
                    raise ValueError(f"line {number} of {file} is no box: class x y width height")
                yield _name_of(file), str(names[int(place)]), _yolo_box([float(one) for one in numbers[:4]])


def _yolo_box(shares: Sequence[float]) -> MaskPrompt:
    x, y, width, height = (1000 * share for share in shares)
    return MaskPrompt((x - width / 2, y - height / 2, x + width / 2, y + height / 2), frame=RELATIVE_1000)


def _label_files(path: Path) -> list[Path]:
    """The label files beside data.yaml."""
    files = sorted((path.parent / "labels").rglob("*.txt"))
    if not files:
        raise DataError(f"there are no labels/*.txt beside {path}")
    return files


def _name_of(file: Path) -> str:
    """The image's path without suffix: what stands behind the folder `labels`."""
    parts = file.with_suffix("").parts
    return "/".join(parts[len(parts) - parts[::-1].index("labels") :])


def _lines(path: Path) -> Iterator[_Entry]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            row: Any = json.loads(line)
            try:
                for prompt in row["prompts"]:
                    yield str(row["image"]), str(row["query"]), MaskPrompt.from_json(_whole(prompt), ORIGINAL)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {error!r}") from error


def _whole(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt with what it may leave out: no box, no points, and labels that are all 1."""
    points = prompt.get("points_xy", [])
    return {"box_xyxy": prompt.get("box_xyxy"), "points_xy": points, "labels": prompt.get("labels", [1] * len(points))}
