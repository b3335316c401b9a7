"""`segrl segment` in a process that is to be killed: a policy of fixed answers, and a line once it is loaded."""

from __future__ import annotations

import sys

import pytest
from folder_runs import fixed_answers

from segrl import loading
from segrl.cli import main

if __name__ == "__main__":
    fixed_answers(pytest.MonkeyPatch())
    load = loading.load

    def load_and_say(**options: object) -> object:
        print("loaded", flush=True)
        return load(**options)

    loading.load = load_and_say  # type: ignore[assignment]
    sys.argv[0] = "segrl"
    main()
