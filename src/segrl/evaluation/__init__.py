"""A policy measured on a data set: records, metrics with intervals, comparisons; in directories that can be resumed.

EvalSettings, run         a whole evaluation in a directory; run_on by several processes or a cluster
Loaded, load              what settings name, loaded; `run` takes it too
evaluate                  examples → records, without a file
EvalRecord, read_jsonl    one answered and scored example, and a file of them
compare_runs              two directories: what changed, with paired intervals
best_of_checkpoints       several of them: what each measured, and the best of each metric
pointing                  records → statistics of the boxes and points
"""

from segrl.evaluation.bootstrap import bootstrap_ci, paired_bootstrap
from segrl.evaluation.catalogue import CATALOGUE
from segrl.evaluation.compare import best_of_checkpoints, compare_runs
from segrl.evaluation.measures import pointing
from segrl.evaluation.overlap import Overlap
from segrl.evaluation.records import EvalRecord, read_jsonl, write_jsonl
from segrl.evaluation.run import OnWindow, Share, evaluate, run, run_on, write_evaluation
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.settings import EvalSettings, Loaded, describe, load
from segrl.inference import Decoding

__all__ = [
    "CATALOGUE",
    "Decoding",
    "EvalDir",
    "EvalRecord",
    "EvalSettings",
    "Loaded",
    "OnWindow",
    "Overlap",
    "Share",
    "best_of_checkpoints",
    "bootstrap_ci",
    "compare_runs",
    "describe",
    "evaluate",
    "load",
    "paired_bootstrap",
    "pointing",
    "read_jsonl",
    "run",
    "run_on",
    "write_evaluation",
    "write_jsonl",
]
