"""A policy measured on a data set: one record per example, written as JSON lines.

evaluate                  examples → records, over the one road
evaluate_gold             the same with gold mask prompts for answers: the ceiling
write_jsonl, read_jsonl   records to and from a file
pointing                  records → how the policy points
summarize, compare        records → the numbers of `segrl.metrics`
"""

from segrl.evaluation.evaluate import OnProgress, compare, evaluate, summarize
from segrl.evaluation.gold import evaluate_gold
from segrl.evaluation.pointing import pointing
from segrl.evaluation.records import EvalRecord, read_jsonl, write_jsonl

__all__ = [
    "EvalRecord",
    "OnProgress",
    "compare",
    "evaluate",
    "evaluate_gold",
    "pointing",
    "read_jsonl",
    "summarize",
    "write_jsonl",
]
