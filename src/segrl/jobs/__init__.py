"""Long work that may be stopped at any moment and gone on with: a journal, workers, and how far it is.

    journal.py    what is finished: an append-only file of rows, the settings it was made with, one writer at a time
    workers.py    tasks → results, in this process or in several
    cluster.py    the same on a Ray cluster
    progress.py   a bar on a terminal, a line now and then elsewhere

Folder segmentation, evaluation and `segrl data reason` stand on it.
"""

from segrl.jobs.journal import Journal, check_settings, locked
from segrl.jobs.workers import Executor, InProcess, Processes, WorkerDied, WorkerInfo

__all__ = ["Executor", "InProcess", "Journal", "Processes", "WorkerDied", "WorkerInfo", "check_settings", "locked"]
