"""Images and queries → masks on disk: skips what is finished, and goes on where it was stopped.

Pictures that lie elsewhere now are recognised by their content, so that they are not asked about again. Pictures
that are gone, and queries that nobody asks any more, leave the folder when that is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from segrl import exports
from segrl.exports import Export, FileState, Found, ImageRecord
from segrl.files import make_directory
from segrl.folder_job.inputs import Job
from segrl.folder_job.records import LOCK, REVIEW, ByDoubt, Records, write_review
from segrl.folder_job.worker import Plan, Task, about, answered, write
from segrl.jobs import Executor, InProcess, Processes, WorkerDied, locked
from segrl.jobs.workers import Work


@dataclass
class Tally:
    """Answers to one query: images asked, with something found, objects, "nothing there", repaired, not readable.

    nothing: the model said so, or all objects were smaller than asked for.
    """

    images: int = 0
    found: int = 0
    objects: int = 0
    nothing: int = 0
    repaired: int = 0
    unread: int = 0

    def add(self, answer: Found) -> None:
        """Counts one answer."""
        self.images += 1
        self.found += bool(answer.masks)
        self.objects += len(answer.masks)
        self.nothing += not answer.masks and not answer.status.is_failure
        self.repaired += bool(answer.repairs)
        self.unread += answer.status.is_failure


@dataclass
class Summary:
    """What a run did, and what its folder holds now.

    new, skipped: images answered now, and before. broken: what is wrong with each image that could not be
    used. tallies: by query, over all runs. files: what each format wrote, by its name. pruned_images,
    pruned_queries: what left the folder.
    """

    new: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    pruned_images: int = 0
    pruned_queries: list[str] = field(default_factory=list)


def count(records: Iterable[ImageRecord]) -> dict[str, Tally]:
    """A tally for each query."""
    tallies: dict[str, Tally] = {}
    for record in records:
        for found in record.answers:
            tallies.setdefault(found.query, Tally()).add(found)
    return tallies


def prune(records: Records, plan: Plan, asked: Sequence[str], summary: Summary) -> Plan:
    """Removes images whose file is gone and answers to queries that are not `asked`, with their files.

    Classes are numbered anew, in the order in which they were asked first; files that a person has corrected keep
    everything else. Returns the plan with the queries that stay. Whatever ends this, the same call mends it.
    """
    kept = tuple(query for query in plan.queries if query in set(asked))
    new_plan = dataclasses.replace(plan, queries=kept)
    before, after = plan.writers(), new_plan.writers()
    for record in list(records):
        left = dataclasses.replace(record, answers=tuple(one for one in record.answers if one.query in kept))
        if not Path(record.image).exists() or not left.answers:
            for writer in before:
                writer.remove(record)
            records.remove(record.image)
            summary.pruned_images += 1
        elif plan.queries != kept:
            for was, now in zip(before, after, strict=True):
                now.keep(record, left, was)
            if left != record:
                records.add(left)
    summary.pruned_queries = [query for query in plan.queries if query not in kept]
    if summary.pruned_queries:
        records.begin(kept, plan.formats)
    return new_plan


def follow_moved(jobs: Sequence[Job], records: Records, writers: Sequence[Export]) -> None:
    """Gives the records of images that are gone to jobs whose image is unknown and has the same content.

    Their files in the folder get the image's new name, where it has another. A copy is no moved picture: the record
    stays where its image does.
    """
    gone = {image: note for image, note in records.notes.items() if note.sha256 and not Path(image).exists()}
    if not gone:
        return
    sizes = {note.n_bytes for note in gone.values()}
    by_content: dict[str | None, list[str]] = {}
    for image, note in gone.items():
        by_content.setdefault(note.sha256, []).append(image)
    for job, state in _unknown(jobs, records, sizes):
        images = by_content.get(state.sha256, [])
        if images:
            called = [image for image in images if _is_called(job, gone[image].file_name)]
            images.remove(chosen := next(iter(called), images[0]))
            old = records.get(chosen)
            assert old is not None  # it has a note
            _follow(old, job, state, records, writers)


def _unknown(jobs: Sequence[Job], records: Records, sizes: set[int | None]) -> Iterator[tuple[Job, FileState]]:
    """Images without a record that have the size of one that is gone; only these are read."""
    for job in jobs:
        if str(job.image) not in records.notes and job.image.exists() and job.image.stat().st_size in sizes:
            yield job, FileState.of(job.image)


def _follow(old: ImageRecord, job: Job, state: FileState, records: Records, writers: Sequence[Export]) -> None:
    names = (old.file_name, old.name)
    if not _is_called(job, old.file_name):
        names = records.names.take(job.file_name, job.image)
    new = dataclasses.replace(old, image=str(job.image), file_name=names[0], name=names[1], file=state)
    for writer in writers:
        writer.move(old, new)
    records.add(new, was=old.image)


def _is_called(job: Job, file_name: str) -> bool:
    """Whether the path of the job's image ends in that name."""
    return job.image.as_posix().endswith(f"/{file_name}")


OnImage = Callable[[int, int], None]
"""Called with the number of images that are through and that there are to do in this run."""


def segment_photos(
    jobs: Sequence[Job],
    plan: Plan,
    *,
    executor: Executor | None = None,
    on_image: OnImage | None = None,
    prunes: bool = False,
) -> Summary:
    """Answer every job's queries and write the plan's formats to its folder, one batch in memory at a time.

    An image is finished when its files are written and its line stands in the journal; finished ones
    are not answered again, also for a format or a query that is new, nor when they lie elsewhere now. Another
    picture under the same name is. A folder that holds masks of another policy is refused. An image that cannot be
    used is left out and stands in `Summary.broken`. Exports and tallies hold all that the folder has, from earlier
    runs too, in every format that it has. The plan's `queries` are filled in here. executor: who answers, without it
    this process. prunes: images that are gone and queries that no job asks leave the folder first. Raises SegrlError
    for a format that there is not, and for a folder that another process writes to.
    """
    plan.writers()  # a wrong format is told before anything is written
    make_directory(plan.out)
    with locked(plan.out / LOCK, plan.out):
        return _segment(jobs, plan, executor or InProcess(), on_image or (lambda done, total: None), prunes)


def _segment(jobs: Sequence[Job], plan: Plan, executor: Executor, on_image: OnImage, prunes: bool) -> Summary:
    records, summary = Records(plan.out, plan.made_with()), Summary()
    formats = dict.fromkeys([*_formats(records, plan), *plan.formats])
    asked = list(dict.fromkeys(query for job in jobs for query in job.queries))
    plan = dataclasses.replace(plan, formats=tuple(formats), queries=tuple(dict.fromkeys([*records.queries, *asked])))
    follow_moved(jobs, records, plan.writers())
    if prunes:
        plan = prune(records, plan, asked, summary)
    writers = plan.writers()
    tasks, incomplete = _left_to_do(jobs, records, writers)
    summary.skipped, total = len(jobs) - len(tasks), len(tasks) + len(incomplete)
    if not tasks:
        records.begin(plan.queries, plan.formats)
    for number, (record, lacking) in enumerate(incomplete, 1):
        summary.broken += [problem] if (problem := write(record, lacking)) else []
        on_image(number, total)
    begin = partial(records.begin, plan.queries, plan.formats)
    for number, (task, outcome) in enumerate(_answered(tasks, plan, executor, begin), len(incomplete) + 1):
        _note(task, outcome, records, writers, summary)
        on_image(number, total)
    order = ByDoubt(records) if plan.by_doubt or plan.review else None
    exported = records if order is None or not plan.by_doubt else order
    summary.files = {writer.name: writer.finish(exported) for writer in writers}
    if order is not None and plan.review:
        summary.files[REVIEW] = write_review(order, plan, plan.review)
    summary.tallies = count(records)
    return summary


def _formats(records: Records, plan: Plan) -> list[str]:
    """The formats that the folder has."""
    if records.formats is not None:
        return records.formats
    return [name for name in exports.names() if exports.get(name)(plan.out, records.queries).place.exists()]


def _note(
    task: Task, outcome: ImageRecord | str, records: Records, writers: Sequence[Export], summary: Summary
) -> None:
    if isinstance(outcome, ImageRecord):
        records.add(outcome)
        summary.new += 1
        return
    summary.broken.append(outcome)
    if task.replaced is not None:  # its answers are about another picture
        records.remove(task.replaced.image)
        for writer in writers:
            writer.remove(task.replaced)


def _answered(
    tasks: Sequence[Task], plan: Plan, executor: Executor, begin: Callable[[], None]
) -> Iterator[tuple[Task, ImageRecord | str]]:
    """Each task with its record, or with what is wrong with its image. begin: called once a model is loaded."""
    if not tasks:
        return

    def begun() -> Iterator[Task]:
        begin()
        yield from tasks

    if isinstance(executor, Processes):
        executor = Processes(min(executor.count, len(tasks)))
    work: Work[Task, ImageRecord | str] = partial(answered, plan=plan)
    for task, outcome in executor.run(begun(), work):
        yield task, about(task.image, outcome.why) if isinstance(outcome, WorkerDied) else outcome


def _left_to_do(
    jobs: Sequence[Job], records: Records, writers: Sequence[Export]
) -> tuple[list[Task], list[tuple[ImageRecord, list[Export]]]]:
    """Tasks for what is not answered, and records with the formats whose files are missing."""
    tasks, incomplete = [], []
    for job in jobs:
        task, old = _task(job, records)
        if task is not None:
            tasks.append(task)
        elif old is not None and (lacking := [writer for writer in writers if not writer.is_there(old)]):
            incomplete.append((old, lacking))
    return tasks, incomplete


def _task(job: Job, records: Records) -> tuple[Task | None, ImageRecord | None]:
    """What is left to do about an image, or None; and its record, if there is one."""
    old = records.get(job.image)
    if old is None:
        names = records.names.take(job.file_name, job.image)
        return Task(job.image, *names, job.queries, prompts=job.prompts), None
    if _is_replaced(job, old):
        every = tuple(dict.fromkeys([*old.queries, *job.queries])) if job.prompts is None else job.queries
        return Task(job.image, old.file_name, old.name, every, replaced=old, prompts=job.prompts), old
    missing = tuple(query for query in job.queries if query not in old.queries)
    return (Task(job.image, old.file_name, old.name, missing, old, prompts=job.prompts) if missing else None), old


def _is_replaced(job: Job, old: ImageRecord) -> bool:
    """Whether another picture lies there now. One that is not there is no other one: reading it says what is wrong."""
    return old.file is not None and job.image.exists() and not old.file.is_still(job.image)
