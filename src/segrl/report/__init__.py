"""A run as one static HTML page that opens without a network, and its numbers as summary.json.

RunDirectory   the files of a run that a report reads
write_report   run directory → report.html and summary.json
"""

from segrl.report.run_directory import RunDirectory
from segrl.report.write import write_report

__all__ = ["RunDirectory", "write_report"]
