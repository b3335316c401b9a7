"""Images answered and written: what one worker does."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segrl import exports
from segrl.errors import DataError, SegrlError
from segrl.exports import Export, FileState, Found, ImageRecord, Style
from segrl.images import read_image
from segrl.jobs import WorkerInfo
from segrl.masks import from_rle
from segrl.pipeline import BatchSize
from segrl.result import Result
from segrl.types import Answer, MaskPrompt, Status


@dataclass(frozen=True)
class Plan:
    """What all images have in common, in plain values that can be sent to another process.

    policy: options of `loading.load`; where the tasks bring their own prompts only segmenter and device count.
    formats: of `exports`. queries: every query, by class. min_area: objects of fewer pixels are left out, and
    min_confidence: those that are less sure (`Found.confidences`; who has none stays). prompts: what tells the file of
    the tasks' own prompts from others; None where a policy is asked. by_doubt: exports hold the least sure images
    first. review: so many of them are written for an annotator as well (`segrl.folder_job.records`).
    """

    out: Path
    formats: tuple[str, ...]
    policy: Mapping[str, Any] = field(default_factory=dict)
    batch_size: BatchSize = "auto"
    queries: tuple[str, ...] = ()
    style: Style = field(default_factory=Style)
    min_area: int = 0
    prompts: str | None = None
    min_confidence: float = 0.0
    by_doubt: bool = False
    review: int = 0

    def writers(self) -> list[Export]:
        """One export per format. Raises SegrlError for a format that there is not."""
        return [exports.get(name)(self.out, self.queries, self.style) for name in dict.fromkeys(self.formats)]

    def made_with(self) -> dict[str, Any]:
        """What the masks depend on."""
        model = {key: value for key, value in self.policy.items() if key != "device"}
        if self.prompts is None:
            model = {"reading": "lenient"} | model  # as `pipeline.load` reads answers unless it is told
        page = self.style.pictures.page
        chosen: dict[str, Any] = {"min_area": self.min_area or None, "prompts": self.prompts, "page": page}
        chosen |= {"min_confidence": self.min_confidence or None}
        return model | {key: value for key, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Task:
    """An image and the queries that are still to be asked about it, at least one.

    file_name, name: see ImageRecord. old: its record with the answers that are there. replaced: the record of another
    picture that lay there before. prompts: of each query, where boxes and points are given and no policy is asked.
    """

    image: Path
    file_name: str
    name: str
    queries: tuple[str, ...]
    old: ImageRecord | None = None
    replaced: ImageRecord | None = None
    prompts: Mapping[str, tuple[MaskPrompt, ...]] | None = None


def answered(tasks: Iterable[Task], worker: WorkerInfo, plan: Plan) -> Iterator[ImageRecord | str]:
    """Each task's record, in order, once the files that belong to the image alone are written.

    In place of a record stands what is wrong with the image. One batch of images is in memory at a time, and
    `tasks` is read no further ahead, first when the model is loaded. Raises SegrlError where no image can be
    answered.
    """
    open_tasks: deque[tuple[Task, FileState | None]] = deque()

    def begun() -> Iterator[Task]:
        for task in tasks:
            open_tasks.append((task, _state(task.image)))
            yield task

    device = plan.policy.get("device") or worker.device
    results = _segmented(begun(), plan, device) if plan.prompts else _asked(begun(), plan, device)
    writers = plan.writers()
    for first in results:
        task, state = open_tasks.popleft()
        yield _written(task, [first, *(next(results) for _ in task.queries[1:])], state, plan, writers)


def _asked(tasks: Iterable[Task], plan: Plan, device: str | None) -> Iterator[Result | SegrlError]:
    """A policy's answer to every query of every task."""
    from segrl import loading

    model = loading.load(**{**plan.policy, "device": device})
    for query in plan.queries:
        model.text_to_masks.answer_format.prompt(query)  # one that the policy does not answer ends the run at once
    pairs = ((task.image, query) for task in tasks for query in task.queries)
    yield from model.try_many(pairs, batch_size=plan.batch_size, pictures=plan.style.pictures)


def _segmented(tasks: Iterable[Task], plan: Plan, device: str | None) -> Iterator[Result | SegrlError]:
    """The masks of every task's own boxes and points."""
    from segrl import segmenters
    from segrl.loading import takes_device
    from segrl.segmenters.protocol import ImageTooLarge

    name = plan.policy["segmenter"]
    segmenter = segmenters.load(name, **({"device": device} if device and takes_device(name) else {}))
    for task in tasks:
        answers = [Answer(Status.OK, (task.prompts or {})[query]) for query in task.queries]
        try:
            image = read_image(task.image, pictures=plan.style.pictures)
            found = segmenters.segment(segmenter, [image] * len(answers), answers)
        except (DataError, ImageTooLarge) as error:
            yield from [error] * len(task.queries)
            continue
        for query, one in zip(task.queries, found, strict=True):
            yield Result.of(image, query, "", one)


def _state(image: Path) -> FileState | None:
    """Of the file before it is read; None where the reader will say what is wrong."""
    try:
        return FileState.of(image)
    except OSError:
        return None


def _written(
    task: Task, results: Sequence[Result | SegrlError], state: FileState | None, plan: Plan, writers: Sequence[Export]
) -> ImageRecord | str:
    """The record of a task whose files are written, or what is wrong with its image."""
    found = [result for result in results if isinstance(result, Result)]
    if len(found) < len(results):
        return about(task.image, str(next(error for error in results if isinstance(error, SegrlError))))
    record = exports.record(str(task.image), found, file_name=task.file_name, name=task.name, file=state)
    sized = (large(one, plan.min_area) for one in record.answers)
    record = dataclasses.replace(record, answers=tuple(sure(one, plan.min_confidence) for one in sized))
    old = task.old
    if old is not None:
        record = dataclasses.replace(record, answers=old.answers + record.answers)
    new = {writer.name: task.queries if old is not None and writer.is_there(old) else None for writer in writers}
    return write(record, writers, new) or record


def large(found: Found, min_area: int) -> Found:
    """The answer without objects of fewer pixels than that."""
    kept = [i for i, rle in enumerate(found.masks) if not min_area or from_rle(rle).sum() >= min_area]
    if len(kept) == len(found.masks):
        return found
    said = f"{len(found.masks) - len(kept)} of {len(found.masks)} objects have fewer than {min_area} pixels: left out"
    return found.only(kept, said)


def sure(found: Found, min_confidence: float) -> Found:
    """The answer without objects that are less sure than that."""
    told = found.confidences or ()
    kept = [i for i, confidence in enumerate(told) if confidence >= min_confidence]
    if len(kept) == len(told):
        return found
    said = f"{len(told) - len(kept)} of {len(told)} objects have a confidence below {min_confidence:g}: left out"
    return found.only(kept, said)


def write(
    record: ImageRecord, writers: Iterable[Export], new: Mapping[str, Sequence[str] | None] | None = None
) -> str | None:
    """Writes what belongs to one image; what is wrong with the image, or None.

    new: of a format, the queries whose answers its files lack; without it, or for None, they are written anew. Raises
    SegrlError where nothing can be written, for instance on a full disk.
    """
    try:
        for writer in writers:
            writer.add(record, (new or {}).get(writer.name))
    except DataError as error:
        return about(Path(record.image), str(error))
    return None


def about(image: Path, problem: str) -> str:
    """A problem in one line that names its image."""
    return problem if str(image) in problem else f"{image}: {problem}"
