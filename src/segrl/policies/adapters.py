"""PEFT adapters as policies: a directory with adapter_config.json, laid over the model that it was trained on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from segrl.errors import ModelError
from segrl.text import first_line

FILE_NAME = "adapter_config.json"

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""One of them lies in a directory that has a processor of its own."""


def base_of(name: str) -> str | None:
    """The name or directory of the model below an adapter; None for a directory that holds a whole model.

    Raises ModelError for an adapter that does not say what it was trained on.
    """
    path = Path(name) / FILE_NAME
    if not path.is_file() or (Path(name) / "config.json").is_file():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not say which model the adapter was trained on") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"{path} does not say which model the adapter was trained on")
    return base


def processor_place(name: str, base: str) -> str:
    """Where the processor lies: beside the adapter if it was saved there, else with the model below it."""
    return name if any((Path(name) / file).is_file() for file in PROCESSOR_FILES) else base


def lay_over(model: Any, name: str, *, merge: bool) -> Any:
    """`model` with the adapter of directory `name` in it; merge: added into its weights, which is faster.

    Raises ModelError for an adapter that does not fit the model or lacks some of its weights.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            laid = PeftModel.from_pretrained(model, name)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            reason = first_line(error)
            raise ModelError(f"the adapter {name} cannot be laid over the model below it: {reason}") from error
    if any("missing adapter keys" in str(warning.message) for warning in said):
        raise ModelError(f"the adapter {name} lacks some of its weights: copy it again")
    return laid.merge_and_unload() if merge else laid.get_base_model()
