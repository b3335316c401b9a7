"""A policy measured on a data set: one record per example, written as JSON lines.

evaluate                  examples → records, over the one road
evaluate_gold             the same with gold mask prompts for answers: the ceiling
EvalSettings, run         a whole evaluation in a directory that can be gone on with; run_on_processes on several
compare_runs              two such directories: what changed
best_of_checkpoints       several of them: what each measured, and the best of each metric
write_jsonl, read_jsonl   records to and from a file
pointing                  records → how the policy points
summarize, compare        records → the numbers of `segrl.metrics`
"""

from segrl.evaluation.checkpoints import best_of_checkpoints
from segrl.evaluation.comparison import compare_runs
from segrl.evaluation.evaluate import OnProgress, compare, evaluate, summarize
from segrl.evaluation.gold import evaluate_gold
from segrl.evaluation.inference import Decoding
from segrl.evaluation.pointing import pointing
from segrl.evaluation.processes import run_on_processes
from segrl.evaluation.records import EvalRecord, read_jsonl, write_jsonl
from segrl.evaluation.run import Share, run
from segrl.evaluation.run_dir import EvalDir
from segrl.evaluation.settings import EvalSettings

__all__ = [
    "Decoding",
    "EvalDir",
    "EvalRecord",
    "EvalSettings",
    "OnProgress",
    "Share",
    "best_of_checkpoints",
    "compare",
    "compare_runs",
    "evaluate",
    "evaluate_gold",
    "pointing",
    "read_jsonl",
    "run",
    "run_on_processes",
    "summarize",
    "write_jsonl",
]
