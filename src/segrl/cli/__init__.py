"""The command line. Each command is one file; heavy imports stand inside the functions that need them."""

from __future__ import annotations

import os


def main() -> None:
    """Entry point of `segrl`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from segrl.cli.app import app
    from segrl.devices import prepare_threads

    prepare_threads()

    app(prog_name="segrl")
