"""What a person names on the command line, as images with their queries."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from segrl.errors import DataError
from segrl.images import IMAGE_SUFFIXES
from segrl.types import MaskPrompt

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
            raise DataError(f"nothing is asked about {image}: give --query, or a table with a query for each image")
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
