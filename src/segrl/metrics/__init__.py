"""Numbers over a data set: means, shares and 95% intervals; undefined is None, never NaN.

bootstrap_ci, paired_bootstrap   intervals of a ratio of sums, resampling images
Sample, summarize, compare       gIoU, cIoU, S-measure and parse rate, overall and by kind of query
CATALOGUE, applicable            every metric of the evaluation, and those that samples can give
measure, measure_difference      columns of numbers → metrics with intervals, of one run and between two
"""

from segrl.metrics.bootstrap import Interval, bootstrap_ci, paired_bootstrap, ratio
from segrl.metrics.catalogue import CATALOGUE, Columns, Metric, applicable
from segrl.metrics.measured import measure, measure_difference
from segrl.metrics.summary import METRICS, Sample, compare, summarize

__all__ = [
    "CATALOGUE",
    "METRICS",
    "Columns",
    "Interval",
    "Metric",
    "Sample",
    "applicable",
    "bootstrap_ci",
    "compare",
    "measure",
    "measure_difference",
    "paired_bootstrap",
    "ratio",
    "summarize",
]
