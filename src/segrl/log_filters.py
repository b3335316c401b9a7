"""What libraries say that no user of a command needs."""

from __future__ import annotations

import warnings


def quieten() -> None:
    """Keeps transformers' progress bar over weights and its notes to developers out of the way.

    Bars of downloads stay. Imports transformers.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
    from transformers.utils import logging

    logging.disable_progress_bar()
