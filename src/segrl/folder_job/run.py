"""Images and queries → masks on disk: skips what is finished, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segrl.exports import Export, Found, ImageRecord
from segrl.folder_job.inputs import Job
from segrl.folder_job.journal import Journal
from segrl.folder_job.work import Plan, Task, answered, write
from segrl.types import Status

OnImage = Callable[[int, int], None]
"""Called with the number of images that are through and that there are to do in this run."""


@dataclass
class Tally:
    """Answers to one query: images asked, with something found, objects, "nothing there", not readable."""

    images: int = 0
    found: int = 0
    objects: int = 0
    nothing: int = 0
    unread: int = 0

    def add(self, answer: Found) -> None:
        """Counts one answer."""
        self.images += 1
        self.found += answer.status is Status.OK
        self.objects += len(answer.masks)
        self.nothing += answer.status is Status.NO_TARGET
        self.unread += answer.status.is_failure


@dataclass
class Summary:
    """What a run did, and what its folder holds now.

    new, skipped: images answered now, and before. broken: what is wrong with each image that could not be
    used. tallies: by query, over all runs. files: what each format wrote, by its name.
    """

    new: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def segment_photos(jobs: Sequence[Job], plan: Plan, *, processes: int = 1, on_image: OnImage | None = None) -> Summary:
    """Answer every job's queries and write the plan's formats to its folder, one batch in memory at a time.

    An image is finished when its files are written and its line stands in the journal; finished ones
    are not answered again, also for a format or a query that is new. A folder that holds masks of
    another policy is refused. An image that cannot be used is left out and stands in
    `Summary.broken`. Exports and tallies hold all that the folder has, from earlier runs too. The
    plan's `queries` are filled in here. Raises SegrlError for a format that there is not.
    """
    plan.writers()  # a wrong format is told before anything is written
    journal = Journal(plan.out, {key: value for key, value in plan.policy.items() if key != "device"})
    journal.ask([query for job in jobs for query in job.queries])
    plan = dataclasses.replace(plan, queries=tuple(journal.queries))
    writers, summary = plan.writers(), Summary()
    tasks, incomplete = _left_to_do(jobs, journal, writers)
    summary.skipped = len(jobs) - len(tasks)
    total = len(tasks) + len(incomplete)
    for number, (record, lacking) in enumerate(incomplete, 1):
        if problem := _complete(record, lacking, journal):
            summary.broken.append(problem)
        if on_image:
            on_image(number, total)
    for number, (_, outcome) in enumerate(_answered(tasks, plan, processes), len(incomplete) + 1):
        if isinstance(outcome, ImageRecord):
            journal.add(outcome)
            summary.new += 1
        else:
            summary.broken.append(outcome)
        if on_image:
            on_image(number, total)
    summary.files = {writer.name: writer.finish(journal) for writer in writers}
    summary.tallies = _count(journal)
    return summary


def _answered(tasks: Sequence[Task], plan: Plan, processes: int) -> Iterable[tuple[Task, ImageRecord | str]]:
    if not tasks:
        return ()
    if processes > 1:
        from segrl.folder_job.processes import answered_by_processes

        return answered_by_processes(tasks, plan, processes)
    return answered(tasks, plan)


def _left_to_do(
    jobs: Sequence[Job], journal: Journal, writers: Sequence[Export]
) -> tuple[list[Task], list[tuple[ImageRecord, list[Export]]]]:
    """Tasks for what is not answered, and records with the formats whose files are missing or lack answers."""
    tasks, incomplete = [], []
    for job in jobs:
        old = journal.get(job.image)
        done = {found.query for found in old.answers} if old else set()
        missing = tuple(query for query in job.queries if query not in done)
        if missing:
            names = (old.file_name, old.name) if old else journal.names.take(job.file_name)
            tasks.append(Task(job.image, *names, missing, old))
        elif old and (lacking := [writer for writer in writers if _lacks(writer, old)]):
            incomplete.append((old, lacking))
    return tasks, incomplete


def _lacks(writer: Export, record: ImageRecord) -> bool:
    return writer.name in record.stale or not writer.is_there(record)


def _complete(record: ImageRecord, lacking: Sequence[Export], journal: Journal) -> str | None:
    """Writes the files that a finished image lacks; what is wrong with the image, or None."""
    if problem := write(record, lacking):
        return problem
    still = tuple(name for name in record.stale if name not in {writer.name for writer in lacking})
    if still != record.stale:
        journal.add(dataclasses.replace(record, stale=still))
    return None


def _count(records: Iterable[ImageRecord]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for record in records:
        for found in record.answers:
            tallies.setdefault(found.query, Tally()).add(found)
    return tallies
