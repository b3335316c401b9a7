"""Opening a checkpoint of transformers, with every mistake told in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import cached_file

from segrl.devices import parse_device
from segrl.errors import ModelError
from segrl.policies.checkpoint import FILE_NAME as ADAPTER_FILE
from segrl.policies.checkpoint import HUB_NAME, base_of, check_files, lay_over, processor_place, with_known_names
from segrl.policies.frames import FAMILY_FRAMES
from segrl.policies.model_speedups import keep_room, project_patches
from segrl.policies.published import published_settings
from segrl.policies.settings import (
    FILE_NAME,
    PolicySettings,
    answer_format_of,
    read_settings,
    read_template,
    refuse_code,
)
from segrl.policies.transformers_policy import TransformersPolicy
from segrl.text import first_line


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    autocast: bool = False,
    answer_format: str | None = None,
    frame: str | None = None,
    input_wh: tuple[int, int] | None = None,
    system: str | None = None,
    prompt_template: str | None = None,
    turns: Mapping[str, Any] | None = None,
    merge_adapter: bool = False,
    base: str | None = None,
    trust_remote_code: bool = False,
    processor: Any = None,
) -> TransformersPolicy:
    """A policy from a directory or from the hub; the directory may hold a PEFT adapter of another model.

    device: the first CUDA device if there is one, else the CPU. dtype: of the weights; bfloat16 on
    CUDA and float32 on the CPU unless said. autocast: compute in bfloat16 with weights of `dtype`.
    merge_adapter: add an adapter into the weights below it, instead of computing both beside each other.
    base: where the model below an adapter is, if it is not where it was in the adapter's training.
    trust_remote_code: import the answer format that the checkpoint's segrl.json names as code; code of
    transformers' own is never taken from a checkpoint. processor: the checkpoint's own, where it is loaded already.
    prompt_template: the file with the text prompt of its training, `{query}` in it (`read_template`). turns: what it
    is shown after a turn, options of `segrl.turns.TurnView`.
    The others override the checkpoint's segrl.json (`PolicySettings`), and where that is missing
    what the table of published checkpoints says (`published`). Raises ModelError naming the checkpoint if
    it is missing, incomplete, has no processor or is of an unknown family, and for a device that is not here.
    """
    name = str(name_or_path)
    found = find_settings(name, base)
    refuse_code(found, name, trusted=trust_remote_code or answer_format is not None)
    settings = found.override(
        answer_format=answer_format,
        frame=frame,
        input_wh=input_wh,
        system=system,
        prompt_template=read_template(prompt_template),
        turns=turns,
    )
    where = parse_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    base = base_of(name, base)
    if processor is None:
        processor = load_processor(name if base is None else processor_place(name, base))
    model = load_model(name if base is None else base, _dtype(dtype, where))
    if base is not None:
        model = lay_over(model, name, merge=merge_adapter).eval()
    model = model.to(where)
    return TransformersPolicy(
        model, processor, settings, autocast=autocast, assumed=_assumed(name, settings, model.config.model_type)
    )


def load_processor(name: str, **options: Any) -> Any:
    """The checkpoint's processor; options: the tokenizer's.

    Raises ModelError if there is none that takes images and text.
    """
    _check_place(name)
    try:
        processor = _load_processor(name, options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{name} has no processor that can be loaded ({first_line(error)}): "
            "copy preprocessor_config.json and the tokenizer's files from the model it was trained from"
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(
            f"{name} has a {type(processor).__name__} but no processor for images and text: "
            "copy preprocessor_config.json from the model it was trained from"
        )
    return processor


def _load_processor(name: str, options: dict[str, Any]) -> Any:
    """As transformers loads it; a second time with the image processor's name of this version, where there is one."""
    try:
        return AutoProcessor.from_pretrained(name, **options)
    except (ValueError, KeyError, ImportError):
        file = Path(name, "config.json") if Path(name).is_dir() else cached_file(name, "config.json")
        with with_known_names(Path(str(file)).parent) as renamed:
            if renamed is None:
                raise
            return AutoProcessor.from_pretrained(str(renamed), **options)


def load_model(name: str, dtype: torch.dtype | Literal["auto"]) -> Any:
    """The checkpoint's model in evaluation mode; dtype auto: as its weights are.

    Raises ModelError if it is missing, broken or incomplete.
    """
    from safetensors import SafetensorError

    _check_place(name)
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"cannot load the model {name}: {first_line(error)}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"the model {name} lacks {len(missing)} of its weights, {missing[0]} for one: copy it again")
    _check_four_bits(name, model)
    project_patches(model)
    keep_room(model)
    return model.eval()


def _check_four_bits(name: str, model: Any) -> None:
    """Raises ModelError for 4-bit layers that bitsandbytes (0.50) cannot answer with on this processor.

    With AVX512's bfloat16 it packs weights anew, and takes layers with whole blocks of inputs only.
    """
    for place, layer in model.named_modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        packs = getattr(layer, "support_avx512bf16_for_cpu", False) and layer.weight.device.type == "cpu"
        if state is not None and packs and layer.in_features % state.blocksize:
            raise ModelError(
                f"the model {name} has a 4-bit layer with {layer.in_features} inputs ({place}), and bitsandbytes on "
                f"this CPU needs multiples of {state.blocksize}: use a GPU, or weights that are not quantized"
            )


def _check_place(name: str) -> None:
    """Refuse a directory that is not there or holds no model, before anything asks the hub for it."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / ADAPTER_FILE).is_file():
            check_files(path)
            raise ModelError(f"the directory {name} holds no model: config.json is missing")
        check_files(path)
    elif path.exists():
        raise ModelError(f"{name} is a file: give the directory of a model, or a model's name on the hub")
    elif not HUB_NAME.fullmatch(name):
        raise ModelError(
            f"there is no model directory {name}: give an existing one, owner/name, tiny-photos or tiny-scenes"
        )


def find_settings(name: str, base: str | None = None) -> PolicySettings:
    """What segrl.json says, in a directory or among the files on the hub; else the table; else nothing.

    An adapter without one is used as the model below it, `base` if given. Raises ModelError for a checkpoint
    that is not there.
    """
    _check_place(name)
    if not (Path(name) / FILE_NAME).is_file() and (below := base_of(name, base)) is not None:
        return find_settings(below)
    if Path(name).is_dir():
        directory: Path | None = Path(name)
    else:
        _check_hub(name)
        file = cached_file(name, FILE_NAME, _raise_exceptions_for_missing_entries=False)
        directory = Path(file).parent if file else None
    if directory is not None and (directory / FILE_NAME).is_file():
        return read_settings(directory)
    return published_settings(name)


def _assumed(name: str, settings: PolicySettings, model_type: str) -> str:
    """What nobody said about a checkpoint, in one line for a person; "" if all was said."""
    taken = []
    if settings.answer_format is None:
        taken.append(f"the answer format {answer_format_of(settings, model_type)}, with no system prompt")
    if settings.frame is None:
        taken.append(f"the frame {FAMILY_FRAMES[model_type]}, as {model_type} models write")
    if not taken:
        return ""
    return (
        f"segrl does not know {name} and assumes {', and '.join(taken)}, and images of their own size; "
        "to change this, set answer_format, frame and input_wh, or in a segrl.json beside the weights"
    )


def _check_hub(name: str) -> None:
    """Refuse at once a model that is neither downloaded nor on the hub; loading it would retry for minutes."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:
        raise ModelError(
            f"there is no directory {name} here, and it was not found on the hub ({first_line(error)})"
        ) from error


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(known, torch.dtype):
        raise ModelError(f"unknown dtype {dtype!r}: for instance float32 or bfloat16")
    return known
