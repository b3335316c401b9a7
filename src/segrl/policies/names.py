"""What a policy's name says: whether the model is behind a server, and what the model itself is called."""

from __future__ import annotations

import re

_SERVED = "openai:"
_ADDRESS = re.compile(r"@(?=https?://)")


def is_served(name: str) -> bool:
    """Whether the name is that of a model behind a server, `openai:MODEL@http://host:port/v1`."""
    return name.startswith(_SERVED)


def model_name(name: str) -> str:
    """The name of the model: MODEL of one behind a server, any other as it is.

    >>> model_name("openai:Qwen/Qwen3-VL-8B-Thinking@http://localhost:8000/v1"), model_name("tiny")
    ('Qwen/Qwen3-VL-8B-Thinking', 'tiny')
    """
    return _ADDRESS.split(name.removeprefix(_SERVED), maxsplit=1)[0] if is_served(name) else name
