"""What leaves a folder when it is asked for: pictures that are gone, and queries that nobody asks any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from segrl.exports import ImageRecord
from segrl.folder_job.records import Records
from segrl.folder_job.summary import Summary
from segrl.folder_job.work import Plan


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
            _replace(records, record, left)
    summary.pruned_queries = [query for query in plan.queries if query not in kept]
    if summary.pruned_queries:
        records.begin(kept, plan.formats)
    return new_plan


def _replace(records: Records, record: ImageRecord, left: ImageRecord) -> None:
    if left != record:
        records.add(left)
