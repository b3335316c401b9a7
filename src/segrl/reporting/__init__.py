"""A run as one static HTML page that opens without a network, and its numbers as summary.json.

EvaluatedRun   the files of a run that a report reads
write_report   run directory → report.html and summary.json
"""

from segrl.reporting.evaluated_run import EvaluatedRun
from segrl.reporting.write import chosen, write_report

__all__ = ["EvaluatedRun", "chosen", "write_report"]
