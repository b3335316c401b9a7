"""A folder of photographs and a sentence in, masks that other tools read out."""

from segrl.folder_job.inputs import Inputs, Job, find_jobs, fingerprint, with_prompts
from segrl.folder_job.run import Summary, Tally, segment_photos
from segrl.folder_job.worker import Plan

__all__ = [
    "Inputs",
    "Job",
    "Plan",
    "Summary",
    "Tally",
    "find_jobs",
    "fingerprint",
    "segment_photos",
    "with_prompts",
]
