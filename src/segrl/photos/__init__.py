"""A folder of photographs and a sentence in, masks that other tools read out."""

from segrl.photos.inputs import Inputs, Job, find_jobs
from segrl.photos.run import Summary, Tally, segment_photos
from segrl.photos.work import Plan

__all__ = ["Inputs", "Job", "Plan", "Summary", "Tally", "find_jobs", "segment_photos"]
