"""Options written as KEY=VALUE behind a command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def key_values(pairs: Iterable[str]) -> dict[str, Any]:
    """`["per=image"]` → `{"per": "image"}`, values read as YAML. Raises DataError for what is no KEY=VALUE."""
    import yaml

    from segrl.documents import load_yaml
    from segrl.errors import DataError

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise DataError(f"an option is written KEY=VALUE, not {pair!r}")
        try:
            options[key] = load_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            raise DataError(f"the value of {key} cannot be read: {value!r}") from error
    return options
