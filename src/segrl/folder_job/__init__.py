"""A folder of photographs and a sentence in, masks that other tools read out."""

from segrl.folder_job.inputs import Inputs, Job, find_jobs, fingerprint, with_prompts
from segrl.folder_job.run import Summary, Tally, segment_photos
from segrl.folder_job.shards import find_shards, is_sharded, segment_shards
from segrl.folder_job.worker import Plan

__all__ = [
    "Inputs",
    "Job",
    "Plan",
    "Summary",
    "Tally",
    "find_jobs",
    "find_shards",
    "fingerprint",
    "is_sharded",
    "segment_photos",
    "segment_shards",
    "with_prompts",
]
