"""A run or an evaluation as one static HTML page that opens without a network.

EvaluatedRun   the files of a run that a report reads
write_report   directory of a run, an evaluation or general ability → report.html
"""

from segrl.reporting.evaluated_run import EvaluatedRun
from segrl.reporting.write import chosen, write_report

__all__ = ["EvaluatedRun", "chosen", "write_report"]
