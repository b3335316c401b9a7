"""Pictures by the million: shards of them in, a parquet file of answers for each out, by any executor.

    photos/                    images, IMAGES_PER_SHARD in each shard
    data/*.parquet             a shard for each row group: the column `image`, or the first that holds pictures
    data/*.tar                 WebDataset: a shard for each file, every member that is an image
    hub:NAME, hub:NAME@SPLIT   a data set of the hub (or of that layout in a folder), streamed: its own shards

    out/shards/NAME.parquet    a row for each picture and query: image, query, status, text, detail, size, masks, …
    out/shards.jsonl           the journal: a line for each finished shard; what is in it is not done again
    out/segment.json           what all of it was made with

A shard's file appears whole or not at all, and its journal line after it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segrl.errors import DataError, SegrlError
from segrl.exports import Found
from segrl.files import make_directory, write_atomically, write_bytes
from segrl.folder_job.inputs import find_jobs
from segrl.folder_job.run import OnImage, Summary, Tally
from segrl.folder_job.worker import Plan, large, sure
from segrl.images import IMAGE_SUFFIXES
from segrl.jobs import Executor, InProcess, Journal, WorkerDied, WorkerInfo, check_settings, locked
from segrl.jobs.journal import read_settings
from segrl.jobs.workers import Work
from segrl.result import Result
from segrl.text import first_line, one_line

IMAGES_PER_SHARD = 500
HUB = "hub:"
Picture = tuple[str, Any]
"""A picture's name in its shard, and what it is read from: a path or the bytes of a file."""


@dataclass(frozen=True)
class Shard:
    """Some pictures. source: a file or `hub:NAME@SPLIT`; part: which of its row groups or shards; images: paths."""

    name: str
    source: str = ""
    part: int = 0
    parts: int = 1
    images: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with the files that it is read from."""
        told = [self.source, str(self.part), str(self.parts)]
        for path in (*self.images, *([] if not self.source or self.source.startswith(HUB) else [self.source])):
            stat = Path(path).stat()
            told.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).hexdigest()[:16]


def is_sharded(source: str) -> bool:
    """Whether a source is no picture or folder of pictures, but holds them inside."""
    return source.startswith(HUB) or Path(source).suffix.lower() in (".parquet", ".tar")


def find_shards(sources: Sequence[str], *, leave_out: Path | None = None, limit: int | None = None) -> list[Shard]:
    """The shards of all sources, their names distinct. limit: of loose pictures no more than the first so many.

    Raises DataError for a source that is not there or holds no picture, and a limit where pictures are not counted.
    """
    shards: list[Shard] = []
    loose = [source for source in sources if not is_sharded(source)]
    if limit is not None and len(loose) < len(sources):
        raise DataError("--limit counts pictures of files and folders, not those in shards")
    for source in sources:
        if source.startswith(HUB):
            shards += _of_hub(source)
        elif is_sharded(source):
            shards += _of_file(Path(source))
    if loose:
        paths = [
            str(job.image) for job in find_jobs(loose, [], leave_out=leave_out, limit=limit, needs_query=False).jobs
        ]
        chunks = [tuple(paths[i : i + IMAGES_PER_SHARD]) for i in range(0, len(paths), IMAGES_PER_SHARD)]
        shards += [Shard(f"images-{number:06d}", images=chunk) for number, chunk in enumerate(chunks)]
    seen: Counter[str] = Counter()
    named = []
    for shard in shards:
        seen[shard.name] += 1
        again = f"-again{seen[shard.name]}" if seen[shard.name] > 1 else ""
        named.append(Shard(shard.name + again, shard.source, shard.part, shard.parts, shard.images))
    return named


def _of_file(path: Path) -> list[Shard]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix.lower() == ".tar":
        return [Shard(path.stem, str(path.absolute()))]
    import pyarrow.parquet as parquet

    try:
        groups = parquet.ParquetFile(path).num_row_groups
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {first_line(error)}") from error
    return [Shard(f"{path.stem}-{i:05d}", str(path.absolute()), i, groups) for i in range(groups)]


def _of_hub(source: str) -> list[Shard]:
    count = int(_hub(source).num_shards)
    name = source[len(HUB) :].strip("/").replace("/", "--").replace("@", "--")
    return [Shard(f"{name}-{i:05d}", source, i, count) for i in range(count)]


def _hub(source: str) -> Any:
    import datasets

    name, _, split = source[len(HUB) :].partition("@")
    try:
        return datasets.load_dataset(name, split=split or "train", streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot open {source}: {one_line(error)[:200]}") from error


def pictures_of(shard: Shard) -> Iterator[Picture]:
    """Its pictures, one at a time. Raises DataError where the shard itself cannot be read."""
    if shard.images:
        return ((path, Path(path)) for path in shard.images)
    if shard.source.startswith(HUB):
        return _hub_pictures(shard)
    return _tar_pictures(shard) if shard.source.lower().endswith(".tar") else _parquet_pictures(shard)


def _hub_pictures(shard: Shard) -> Iterator[Picture]:
    import datasets

    data = _hub(shard.source)
    column = _picture_column(data.column_names or [], shard)
    rows = data.shard(shard.parts, shard.part).cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(rows):
        yield _of_cell(row[column], row, number)


def _parquet_pictures(shard: Shard) -> Iterator[Picture]:
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(shard.source)
    column = _picture_column(file.schema_arrow.names, shard)
    wanted = [name for name in ("id", column) if name in file.schema_arrow.names]
    number = 0
    for batch in file.iter_batches(batch_size=16, row_groups=[shard.part], columns=wanted):
        for row in batch.to_pylist():
            yield _of_cell(row[column], row, number)
            number += 1


def _picture_column(names: Sequence[str], shard: Shard) -> str:
    found = next((name for name in ("image", "picture", "jpg", "png", "img") if name in names), None)
    if found is None:
        raise DataError(f"{shard.source} has no column image, but {', '.join(names) or 'none'}")
    return found


def _of_cell(cell: Any, row: Mapping[str, Any], number: int) -> Picture:
    """A cell as datasets writes it ({bytes, path}), or plain bytes."""
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    path = cell.get("path") if isinstance(cell, Mapping) else None
    name = str(row.get("id") or path or number)
    return name, data if data is not None else Path(str(path))


def _tar_pictures(shard: Shard) -> Iterator[Picture]:
    try:
        with tarfile.open(shard.source) as archive:
            for member in archive:
                stream = archive.extractfile(member) if Path(member.name).suffix.lower() in IMAGE_SUFFIXES else None
                if stream is not None:
                    yield member.name, stream.read()
    except tarfile.TarError as error:
        raise DataError(f"cannot read {shard.source}: {first_line(error)}") from error


@dataclass(frozen=True)
class Answered:
    """A finished shard. broken: what is wrong with pictures that could not be used."""

    images: int
    broken: tuple[str, ...] = ()
    tallies: Mapping[str, Tally] = field(default_factory=dict)


def answered(shards: Iterable[Shard], worker: WorkerInfo, plan: Plan) -> Iterator[Answered]:
    """Each shard, once its file is written. The model is loaded once, one batch of pictures is open at a time."""
    from segrl import loading

    model = loading.load(**{**plan.policy, "device": plan.policy.get("device") or worker.device})
    for shard in shards:
        names: list[str] = []

        def pairs(shard: Shard = shard, names: list[str] = names) -> Iterator[tuple[Any, str]]:
            for name, source in pictures_of(shard):
                names.append(name)
                yield from ((source, query) for query in plan.queries)

        results = model.try_many(pairs(), batch_size=plan.batch_size, pictures=plan.style.pictures)
        yield _written(shard, names, results, plan)


def _written(shard: Shard, names: list[str], results: Iterable[Result | SegrlError], plan: Plan) -> Answered:
    rows: list[dict[str, Any]] = []
    broken: dict[str, str] = {}
    tallies = {query: Tally() for query in plan.queries}
    for place, result in enumerate(results):
        name, query = names[place // len(plan.queries)], plan.queries[place % len(plan.queries)]
        if isinstance(result, SegrlError):
            broken.setdefault(name, f"{shard.name}, {name}: {result}")
            continue
        found = sure(large(Found.from_result(result), plan.min_area), plan.min_confidence)
        tallies[query].add(found)
        rows.append(_row(name, result.image.size, found))
    write_bytes(plan.out / "shards" / f"{shard.name}.parquet", _parquet(rows), mark=str(id(rows)))
    return Answered(len(names), tuple(broken.values()), tallies)


def _row(name: str, size_wh: tuple[int, int], found: Found) -> dict[str, Any]:
    said = found.to_json()
    return {
        "image": name,
        "width": size_wh[0],
        "height": size_wh[1],
        **{key: said[key] for key in ("query", "status", "text", "detail")},
        "masks": [str(mask["counts"]) for mask in found.masks],
        "boxes": [prompt.box_xyxy and list(prompt.box_xyxy) for prompt in found.prompts],
        "scores": None if found.scores is None else list(found.scores),
    }


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    text, number = pa.string(), pa.float64()
    columns = {"image": text, "width": pa.int32(), "height": pa.int32(), "query": text, "status": text, "text": text}
    columns |= {
        "detail": text,
        "masks": pa.list_(text),
        "boxes": pa.list_(pa.list_(number)),
        "scores": pa.list_(number),
    }
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows), pa.schema(list(columns.items()))), file)
    return file.getvalue()


def segment_shards(
    shards: Sequence[Shard], plan: Plan, *, executor: Executor | None = None, on_shard: OnImage | None = None
) -> Summary:
    """Answers the plan's queries about every picture of every shard that is not finished, into `plan.out`.

    The plan's policy, queries, batch size and style count. on_shard: called with the shards that are finished and
    all there are. Raises SegrlError for a folder of other settings, and one that another process writes to.
    """
    make_directory(plan.out / "shards")
    with locked(plan.out / ".lock", plan.out):
        _claim(plan)
        journal = Journal(plan.out / "shards.jsonl", key=lambda row: row["shard"], note=lambda row: row)
        left = [shard for shard in shards if not _is_done(shard, journal, plan.out)]
        done = len(shards) - len(left)
        summary = Summary(skipped=sum(journal.notes[one.name]["images"] for one in shards if one not in left))
        work: Work[Shard, Answered] = partial(answered, plan=plan)
        for shard, result in (executor or InProcess()).run(left, work) if left else ():
            if isinstance(result, WorkerDied):
                raise SegrlError(f"shard {shard.name}: {result.why}; what is finished is kept, start the command again")
            tallies = {query: asdict(tally) for query, tally in result.tallies.items()}
            row = {"shard": shard.name, "of": shard.fingerprint, "images": result.images, "tallies": tallies}
            journal.add(row | {"broken": list(result.broken)})
            summary.new += result.images
            done += 1
            if on_shard is not None:
                on_shard(done, len(shards))
        _sum_up(summary, journal, shards)
    summary.files = {"shards": plan.out / "shards"}
    return summary


def _claim(plan: Plan) -> None:
    path, settings = plan.out / "segment.json", plan.made_with() | {"queries": list(plan.queries)}
    if path.exists():
        check_settings(plan.out, read_settings(path), settings, "masks made")
    write_atomically(path, json.dumps(settings, ensure_ascii=False, indent=1) + "\n")


def _is_done(shard: Shard, journal: Journal, out: Path) -> bool:
    row = journal.notes.get(shard.name)
    there = (out / "shards" / f"{shard.name}.parquet").exists()
    return row is not None and there and bool(row["of"] == shard.fingerprint)


def _sum_up(summary: Summary, journal: Journal, shards: Sequence[Shard]) -> None:
    """Tallies and problems of all finished shards."""
    for shard in shards:
        row = journal.notes[shard.name]
        summary.broken += row["broken"]
        for query, tally in row["tallies"].items():
            whole = summary.tallies.setdefault(query, Tally())
            for name, count in tally.items():
                setattr(whole, name, getattr(whole, name) + count)
