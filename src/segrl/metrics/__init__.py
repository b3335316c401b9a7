"""Numbers over a data set: means, shares and 95% intervals; undefined is None, never NaN.

bootstrap_ci, paired_bootstrap   intervals of a ratio of sums, resampling images
Sample, summarize, compare       gIoU, cIoU, S-measure and parse rate, overall and by kind of query
"""

from segrl.metrics.bootstrap import Interval, bootstrap_ci, paired_bootstrap, ratio
from segrl.metrics.summary import METRICS, Sample, compare, summarize

__all__ = ["METRICS", "Interval", "Sample", "bootstrap_ci", "compare", "paired_bootstrap", "ratio", "summarize"]
