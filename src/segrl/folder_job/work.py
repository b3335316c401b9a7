"""Images answered and written: what one worker does."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segrl import exports
from segrl.batching import BatchSize
from segrl.errors import DataError, SegrlError
from segrl.exports import Export, ImageRecord
from segrl.jobs import Seat
from segrl.pipeline import Result


@dataclass(frozen=True)
class Plan:
    """What all images have in common, in plain values that can be sent to another process.

    policy: options of `pipeline.load`. formats: of `exports`. queries: every query, by class.
    """

    out: Path
    formats: tuple[str, ...]
    policy: Mapping[str, Any] = field(default_factory=dict)
    batch_size: BatchSize = "auto"
    queries: tuple[str, ...] = ()

    def writers(self) -> list[Export]:
        """One export per format. Raises SegrlError for a format that there is not."""
        return [exports.get(name)(self.out, self.queries) for name in dict.fromkeys(self.formats)]

    def left_behind(self, old: ImageRecord, new: ImageRecord) -> tuple[str, ...]:
        """Formats that are not written now, and whose one file for all answers of an image has only the old ones."""
        others = [exports.get(name)(self.out, self.queries) for name in exports.names() if name not in self.formats]
        return tuple(one.name for one in others if one.files(old) == one.files(new) != [] and one.is_there(old))


@dataclass(frozen=True)
class Task:
    """An image and the queries that are still to be asked about it, at least one.

    file_name, name: see ImageRecord. old: its record with the answers that are there.
    """

    image: Path
    file_name: str
    name: str
    queries: tuple[str, ...]
    old: ImageRecord | None = None


def answered(tasks: Iterable[Task], seat: Seat, plan: Plan) -> Iterator[ImageRecord | str]:
    """Each task's record, in order, once the files that belong to the image alone are written.

    In place of a record stands what is wrong with the image. One batch of images is in memory at a time, and
    `tasks` is read no further ahead, first when the model is loaded. Raises SegrlError where no image can be
    answered.
    """
    from segrl import pipeline

    model = pipeline.load(**{**plan.policy, "device": plan.policy.get("device") or seat.device})
    writers = plan.writers()
    open_tasks: deque[Task] = deque()

    def pairs() -> Iterator[tuple[Path, str]]:
        for task in tasks:
            open_tasks.append(task)
            yield from ((task.image, query) for query in task.queries)

    results = model.try_many(pairs(), batch_size=plan.batch_size)
    for first in results:
        task = open_tasks.popleft()
        record = _record(task, [first, *(next(results) for _ in task.queries[1:])], plan)
        yield record if isinstance(record, str) else write(record, writers) or record


def _record(task: Task, results: Sequence[Result | SegrlError], plan: Plan) -> ImageRecord | str:
    for result in results:
        if isinstance(result, SegrlError):
            return about(task.image, str(result))
    found = [result for result in results if isinstance(result, Result)]
    record = exports.record(str(task.image), found, file_name=task.file_name, name=task.name)
    if task.old is not None:
        record = dataclasses.replace(record, answers=task.old.answers + record.answers)
        record = dataclasses.replace(record, stale=plan.left_behind(task.old, record))
    return record


def write(record: ImageRecord, writers: Iterable[Export]) -> str | None:
    """Writes what belongs to one image; what is wrong with the image, or None.

    Raises SegrlError where nothing can be written, for instance on a full disk.
    """
    try:
        for writer in writers:
            writer.add(record)
    except DataError as error:
        return about(Path(record.image), str(error))
    return None


def about(image: Path, problem: str) -> str:
    """A problem in one line that names its image."""
    return problem if str(image) in problem else f"{image}: {problem}"
