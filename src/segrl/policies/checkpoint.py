"""What lies in a checkpoint's directory: a whole model, a PEFT adapter, or what cannot be used as it is. No torch.

An adapter (adapter_config.json) is laid over the model that it was trained on.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segrl.errors import ModelError
from segrl.text import first_line

FILE_NAME = "adapter_config.json"

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SAY_BASE = "say where the model is with base (--base, policy.base)"
_POINTER, _POINTER_BYTES = b"version https://git-lfs", 1024
_SHARDS = {
    "model_world_size_*_rank_*.pt": "verl merges them with python -m verl.model_merger merge",
    "global_step*/*mp_rank_*_model_states.pt": "DeepSpeed left zero_to_fp32.py beside them, which does it",
    "*mp_rank_*_model_states.pt": "DeepSpeed left zero_to_fp32.py a directory above, which does it",
    "pytorch_model_fsdp_*/*.distcp": "accelerate merge-weights does it",
    "*.distcp": "accelerate merge-weights does it",
}
"""Files of other trainers, and how their weights become one model."""

_SMALL, _SMALL_BYTES = {".json", ".jinja", ".txt", ".model"}, 64 * 2**20
_IMAGE_PROCESSOR = re.compile(
    rb'("image_processor_type"\s*:\s*)"(?:Qwen2_5_VL|Qwen3VL|Qwen3_5)ImageProcessor(?:Fast)?"'
)
"""Names of older and newer versions of transformers for the image processor of all Qwen-VL families."""

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""One of them lies in a directory that has a processor of its own."""


def is_adapter(name: str) -> bool:
    """Whether a directory holds an adapter without the model below it."""
    return (Path(name) / FILE_NAME).is_file() and not (Path(name) / "config.json").is_file()


def base_of(name: str, base: str | None = None) -> str | None:
    """The name or directory of the model below an adapter; None for a directory that holds a whole model.

    base: where that model is here, instead of where it was when the adapter was trained. Raises ModelError for an
    adapter that does not say what it was trained on, for one whose base is a directory that is not here, and for a
    base given to a whole model.
    """
    if not is_adapter(name):
        if base is not None:
            raise ModelError(f"{name} is not an adapter and has no base model: leave out base")
        return None
    if base is not None:
        return base
    path = Path(name) / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not say which model the adapter was trained on: {_SAY_BASE}") from error
    if not isinstance(found, str) or not found:
        raise ModelError(f"{path} does not say which model the adapter was trained on: {_SAY_BASE}")
    if not Path(found).exists() and not HUB_NAME.fullmatch(found):
        raise ModelError(f"the adapter {name} was trained on {found}, which is not here: {_SAY_BASE}")
    return found


def without_adapters(model: Any) -> Any:
    """The model of transformers below peft's adapters, which stay in it; the model itself where there are none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_files(directory: Path) -> None:
    """Raises ModelError for a directory with a configuration whose weights are no weights that transformers loads:
    pointers of Git LFS, or the shards in which another trainer saves."""
    for path in sorted(directory.glob("*.safetensors")) + sorted(directory.glob("tokenizer*.json")):
        if path.stat().st_size < _POINTER_BYTES and path.read_bytes().startswith(_POINTER):
            raise ModelError(f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull in {directory}")
    if any(any(directory.glob(pattern)) for pattern in ("*.safetensors", "*.bin")):
        return
    for pattern, advice in _SHARDS.items():
        shard = next(iter(sorted(directory.glob(pattern))), None)
        if shard is not None:
            place = shard.relative_to(directory)
            raise ModelError(f"{directory} holds shards of a training ({place}), which must be merged first: {advice}")


@contextmanager
def with_known_names(directory: Path) -> Iterator[Path | None]:
    """A copy of the small files in which an image processor that another version of transformers named is called
    as this one calls it; None where there is no such name."""
    with tempfile.TemporaryDirectory() as place:
        renamed = False
        for path in directory.iterdir():
            if not path.is_file() or path.suffix not in _SMALL or path.stat().st_size > _SMALL_BYTES:
                continue
            text = path.read_bytes()
            if path.name in PROCESSOR_FILES:
                old, text = text, _IMAGE_PROCESSOR.sub(rb'\1"Qwen2VLImageProcessor"', text)
                renamed |= text != old
            (Path(place) / path.name).write_bytes(text)
        yield Path(place) if renamed else None


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
            raise ModelError(f"the adapter {name} does not fit its base model: {reason}") from error
    if any("missing adapter keys" in str(warning.message) for warning in said):
        raise ModelError(f"the adapter {name} lacks some of its weights: copy it again")
    return laid.merge_and_unload() if merge else laid.get_base_model()
