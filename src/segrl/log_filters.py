"""What is said beside a result: by libraries, most of which no user of a command needs, and by segrl, once."""

from __future__ import annotations

import logging
import warnings

logger = logging.getLogger(__name__)

_said: set[str] = set()


def quieten() -> None:
    """Keeps transformers' progress bar over weights and its notes to developers out of the way.

    Bars of downloads stay. Imports transformers.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()


def warn_once(kind: str, message: str) -> None:
    """Warns in one line, for each kind of matter once in a process."""
    if kind not in _said:
        _said.add(kind)
        logger.warning(message)


def forget_warnings() -> None:
    """Lets `warn_once` say again what it has said."""
    _said.clear()
