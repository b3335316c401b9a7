"""What a person names on the command line, as images with their queries, or with boxes and points from a file.

`with_prompts` reads a detection set of COCO or YOLO, or JSON Lines, and no policy is asked:

    boxes.json       COCO: images, annotations with `bbox` (x, y, width, height in pixels), categories; `segmentation`
                     is not looked at
    data.yaml        YOLO: the `labels` beside it, lines of `class x y width height` as shares of the sides, and what
                     a further number says; names of the classes in the file
    prompts.jsonl    {"image": "a/dog.jpg", "query": "the dog",
                      "prompts": [{"box_xyxy": [10, 20, 60, 70], "points_xy": [[30, 40]], "labels": [1]}]}
                     for a segmenter that takes words also `phrase`, `exemplars_xyxy`, `exemplar_labels`

What is asked about an image are its categories, or queries. An entry belongs to the image whose path under what was
named it gives, or else to the one of that name.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from segrl.errors import DataError
from segrl.files import read_yaml
from segrl.images import IMAGE_SUFFIXES
from segrl.types import ORIGINAL, RELATIVE_1000, MaskPrompt

_Entry = tuple[Path, str, str | None]
"""An image, its file name in exports, and its own query if a table gives one."""


@dataclass(frozen=True)
class Job:
    """An image and what is asked about it. file_name: its path under what was named, or its own name.

    prompts: of each query, where boxes and points are given and no policy is asked.
    """

    image: Path
    file_name: str
    queries: tuple[str, ...]
    prompts: Mapping[str, tuple[MaskPrompt, ...]] | None = None


@dataclass(frozen=True)
class Inputs:
    """The jobs, and how many files of which suffix were passed over in folders and patterns as no images."""

    jobs: tuple[Job, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)


def find_jobs(
    sources: Sequence[str],
    queries: Sequence[str],
    *,
    leave_out: Path | None = None,
    limit: int | None = None,
    needs_query: bool = True,
) -> Inputs:
    """One job per image, in the order in which it is named first; an image named twice gets all its queries.

    sources: image files, folders (searched to the bottom, hidden files and folders passed over),
    patterns (`photos/**/*.jpg`), and tables: CSV with the columns image and query, or JSON Lines with
    these keys; paths in a table are relative to it. queries: asked about every image, after its own.
    leave_out: a folder whose files are no input. limit: no more images than that, the first ones. Raises DataError
    for a source that is not there or holds no image, an empty query, and (needs_query) an image without a query.
    """
    if not all(query.strip() for query in queries):
        raise DataError("a query is empty: say what to find, for instance --query 'the dog on the left'")
    passed_over: Counter[str] = Counter()
    asked: dict[Path, tuple[str, dict[str, None]]] = {}
    for source in sources:
        for image, file_name, own in _entries(source, leave_out, passed_over):
            kept = asked.setdefault(image.resolve(), (file_name, {}))[1]
            kept.update(dict.fromkeys([own] if own else []))
    asked = dict(islice(asked.items(), limit))
    for image, (_, kept) in asked.items():
        kept.update(dict.fromkeys(query.strip() for query in queries))
        if not kept and needs_query:
            raise DataError(f"no query for {image}: give --query, or a table with a query for each image")
    names = _distinct({image: name for image, (name, _) in asked.items()})
    return Inputs(tuple(Job(image, names[image], tuple(kept)) for image, (_, kept) in asked.items()), passed_over)


def _distinct(names: Mapping[Path, str]) -> Mapping[Path, str]:
    """The names, or where two images share one the paths of all under the folder that holds them all."""
    if len(set(names.values())) == len(names):
        return names
    common = os.path.commonpath([image.parent for image in names])
    return {image: image.relative_to(common).as_posix() for image in names}


def _entries(source: str, leave_out: Path | None, passed_over: Counter[str]) -> Iterator[_Entry]:
    path = Path(source)
    if path.is_dir():
        yield from _of_folder(path, leave_out, passed_over)
    elif path.is_file() and path.suffix.lower() in (".csv", ".jsonl"):
        for image, query in _rows(path):
            yield path.parent / image, image if not Path(image).is_absolute() else Path(image).name, query
    elif path.is_file():
        yield path, path.name, None
    else:
        yield from _of_pattern(source, leave_out, passed_over)


def _of_folder(folder: Path, leave_out: Path | None, passed_over: Counter[str]) -> Iterator[_Entry]:
    files = (path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder)))
    images = list(_images(files, leave_out, passed_over))
    if not images:
        raise DataError(f"the folder {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    yield from ((path, path.relative_to(folder).as_posix(), None) for path in images)


def _of_pattern(pattern: str, leave_out: Path | None, passed_over: Counter[str]) -> Iterator[_Entry]:
    if not glob.has_magic(pattern):
        raise DataError(f"there is no file or folder {pattern}")
    images = list(_images(map(Path, sorted(glob.glob(pattern, recursive=True))), leave_out, passed_over))
    if not images:
        raise DataError(f"the pattern {pattern} fits no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    yield from ((path, path.name, None) for path in images)


def _images(paths: Iterable[Path], leave_out: Path | None, passed_over: Counter[str]) -> Iterator[Path]:
    skipped = leave_out.resolve() if leave_out else None
    for path in paths:
        if not path.is_file() or (skipped is not None and skipped in path.resolve().parents):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield path
        else:
            passed_over[path.suffix.lower() or "no suffix"] += 1


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _rows(path: Path) -> Iterator[tuple[str, str | None]]:
    """(image, query or None) of each row."""
    try:
        rows = _parsed(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the table {path}: {error}") from error
    if not rows:
        raise DataError(f"the table {path} has no rows")
    for number, row in enumerate(rows, 1):
        image, query = (row.get("image"), row.get("query")) if isinstance(row, dict) else (None, None)
        if not isinstance(image, str) or not image.strip() or not isinstance(query, str | None):
            raise DataError(f"row {number} of {path} names no image: a table has the columns image and query")
        yield image.strip(), (query or "").strip() or None


def _parsed(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte-order mark
    if path.suffix.lower() == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","  # what spreadsheets write where commas are decimal
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))


_Prompted = tuple[str, str, MaskPrompt]
"""An image's name (without suffix in YOLO), what is marked, and its mark."""


def with_prompts(inputs: Inputs, path: Path) -> Inputs:
    """The jobs that `path` has boxes or points for; their queries are what it marks.

    Raises DataError for a file that cannot be read, naming what is wrong, and where no job has an entry.
    """
    entries: dict[str, dict[str, list[MaskPrompt]]] = {}
    for name, query, prompt in _prompted(path):
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


def _prompted(path: Path) -> Iterator[_Prompted]:
    readers = {".json": _coco, ".jsonl": _lines, ".yaml": _yolo, ".yml": _yolo}
    if path.suffix.lower() not in readers:
        raise DataError(f"--prompts takes COCO's .json, YOLO's data.yaml or a .jsonl, not {path}")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"cannot read the prompts {path}: {error!r}") from error


def _coco(path: Path) -> Iterator[_Prompted]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    images = {one["id"]: str(one["file_name"]) for one in content["images"]}
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    for one in content["annotations"]:
        x, y, width, height = map(float, one["bbox"])
        box = (x, y, x + width, y + height)
        yield images[one["image_id"]], names[one["category_id"]], MaskPrompt(box, frame=ORIGINAL)


def _yolo(path: Path) -> Iterator[_Prompted]:
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


def _lines(path: Path) -> Iterator[_Prompted]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            row: Any = json.loads(line)
            try:
                for prompt in row["prompts"]:
                    yield str(row["image"]), str(row["query"]), MaskPrompt.from_json(_whole(prompt), ORIGINAL)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {error!r}") from error


def _whole(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt with what it may leave out: no box, no points, and labels that are all 1, also of example boxes."""
    points, exemplars = prompt.get("points_xy", []), prompt.get("exemplars_xyxy", [])
    plain = {"box_xyxy": None, "points_xy": points, "labels": [1] * len(points)}
    return plain | {"exemplar_labels": [1] * len(exemplars)} | prompt
