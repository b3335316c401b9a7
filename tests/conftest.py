"""What every test tier shares: no network, quiet progress bars, one thread unless asked otherwise."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands do: tests run beside other work
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process of tests on each core

# The same examples on every machine and no limit on one example's time: a busy core fails no test.
settings.register_profile("segrl", deadline=None, derandomize=True)
settings.load_profile("segrl")
