"""Pictures that lie elsewhere now: recognised by their content, so that they are not asked about again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from segrl.exports import Export, FileState, ImageRecord
from segrl.folder_job.inputs import Job
from segrl.folder_job.records import Records


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
