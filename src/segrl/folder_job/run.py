"""Images and queries → masks on disk: skips what is finished, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from segrl.exports import Export, ImageRecord
from segrl.files import make_directory
from segrl.folder_job.inputs import Job
from segrl.folder_job.records import LOCK, Records
from segrl.folder_job.summary import Summary, count
from segrl.folder_job.work import Plan, Task, about, answered, write
from segrl.jobs import Executor, Here, Lost, Processes, locked

OnImage = Callable[[int, int], None]
"""Called with the number of images that are through and that there are to do in this run."""


def segment_photos(
    jobs: Sequence[Job], plan: Plan, *, executor: Executor | None = None, on_image: OnImage | None = None
) -> Summary:
    """Answer every job's queries and write the plan's formats to its folder, one batch in memory at a time.

    An image is finished when its files are written and its line stands in the journal; finished ones
    are not answered again, also for a format or a query that is new. A folder that holds masks of
    another policy is refused. An image that cannot be used is left out and stands in
    `Summary.broken`. Exports and tallies hold all that the folder has, from earlier runs too. The
    plan's `queries` are filled in here. executor: who answers, without it this process. Raises SegrlError
    for a format that there is not, and for a folder that another process writes to.
    """
    plan.writers()  # a wrong format is told before anything is written
    make_directory(plan.out)
    busy = f"{plan.out} is being written by another process: wait for it, or choose another --out"
    with locked(plan.out / LOCK, busy):
        return _segment(jobs, plan, executor or Here(), on_image or (lambda done, total: None))


def _segment(jobs: Sequence[Job], plan: Plan, executor: Executor, on_image: OnImage) -> Summary:
    records = Records(plan.out, {key: value for key, value in plan.policy.items() if key != "device"})
    asked = [query for job in jobs for query in job.queries]
    plan = dataclasses.replace(plan, queries=tuple(dict.fromkeys([*records.queries, *asked])))
    writers, summary = plan.writers(), Summary()
    tasks, incomplete = _left_to_do(jobs, records, writers)
    summary.skipped = len(jobs) - len(tasks)
    total = len(tasks) + len(incomplete)
    if not tasks:
        records.begin(asked)
    for number, (record, lacking) in enumerate(incomplete, 1):
        if problem := _complete(record, lacking, records):
            summary.broken.append(problem)
        on_image(number, total)
    outcomes = _answered(tasks, plan, executor, lambda: records.begin(asked))
    for number, outcome in enumerate(outcomes, len(incomplete) + 1):
        if isinstance(outcome, ImageRecord):
            records.add(outcome)
            summary.new += 1
        else:
            summary.broken.append(outcome)
        on_image(number, total)
    summary.files = {writer.name: writer.finish(records) for writer in writers}
    summary.tallies = count(records)
    return summary


def _answered(
    tasks: Sequence[Task], plan: Plan, executor: Executor, begin: Callable[[], None]
) -> Iterator[ImageRecord | str]:
    """A record for each task, or what is wrong with its image. begin: called once a model is loaded."""
    if not tasks:
        return

    def begun() -> Iterator[Task]:
        begin()
        yield from tasks

    if isinstance(executor, Processes):
        executor = Processes(min(executor.count, len(tasks)))
    for task, outcome in executor.run(begun(), partial(answered, plan=plan)):
        yield about(task.image, outcome.why) if isinstance(outcome, Lost) else outcome


def _left_to_do(
    jobs: Sequence[Job], records: Records, writers: Sequence[Export]
) -> tuple[list[Task], list[tuple[ImageRecord, list[Export]]]]:
    """Tasks for what is not answered, and records with the formats whose files are missing or lack answers."""
    tasks, incomplete = [], []
    for job in jobs:
        old = records.get(job.image)
        done = {found.query for found in old.answers} if old else set()
        missing = tuple(query for query in job.queries if query not in done)
        if missing:
            names = (old.file_name, old.name) if old else records.names.take(job.file_name)
            tasks.append(Task(job.image, *names, missing, old))
        elif old and (lacking := [writer for writer in writers if _lacks(writer, old)]):
            incomplete.append((old, lacking))
    return tasks, incomplete


def _lacks(writer: Export, record: ImageRecord) -> bool:
    return writer.name in record.stale or not writer.is_there(record)


def _complete(record: ImageRecord, lacking: Sequence[Export], records: Records) -> str | None:
    """Writes the files that a finished image lacks; what is wrong with the image, or None."""
    if problem := write(record, lacking):
        return problem
    still = tuple(name for name in record.stale if name not in {writer.name for writer in lacking})
    if still != record.stale:
        records.add(dataclasses.replace(record, stale=still))
    return None
