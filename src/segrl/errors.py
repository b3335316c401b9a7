"""Every error that segrl raises on purpose, and warnings that are shown once.

    SegrlError                 one line that says what is wrong and what to do; the CLI exits with status 2
    ├── RecipeError            a recipe that cannot be used
    ├── DataError              a data set or an image that cannot be read
    ├── ModelError             a policy or segmenter that cannot be loaded
    │   └── ServerError        a server that refuses a request or does not answer it
    └── FrameError             coordinates used in a frame they are not in

A policy's bad *text* is never an error: it is an `Answer` whose status says what is wrong with it.
"""

from __future__ import annotations

import logging
import warnings

ABOUT_THE_REQUEST = frozenset({400, 413, 422})
"""HTTP statuses by which a server turns down one request, and says nothing about the next."""


class SegrlError(Exception):
    """Base class. The message is one line for the person who runs segrl."""


class RecipeError(SegrlError):
    """A recipe that cannot be used: unknown key, wrong value, refused option."""


class DataError(SegrlError):
    """A data set or an image that cannot be read; the message names the file."""


class ModelError(SegrlError):
    """A policy or segmenter that cannot be loaded; the message names the directory."""


class ServerError(ModelError):
    """A server that refuses a request, or does not answer it however often it is asked; the message names the server.

    status: the HTTP status of its last answer; None if none came, or one that could not be read.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_about_the_request(self) -> bool:
        """Whether the server turned down this image or query, and not everything."""
        return self.status in ABOUT_THE_REQUEST


class FrameError(SegrlError):
    """Coordinates used in another frame than the one they are in."""


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
