"""Generation that reads each prompt once for all its completions: those of a rollout's group, the samples of a vote.

`generate` of transformers reads every row of a batch, equal ones too; `num_return_sequences` repeats the
rows before they are read. Here different prompts are read once, and their cache is copied for each completion.

U: different prompts. B: completions. P: tokens of the padded prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig

from segrl.policies.checkpoint import without_adapters

ROWS = ("input_ids", "attention_mask", "mm_token_type_ids")
"""Inputs with a row per sequence and a column per token."""
IMAGES = ("pixel_values", "image_grid_thw")
"""Inputs with rows per image: patches or tiles, and with Qwen's families a grid for each image."""


Write = Callable[..., Any]
"""`model.generate`, whatever has been put around it."""


def generate(
    model: Any,
    inputs: Mapping[str, Tensor],
    generation_config: GenerationConfig,
    *,
    write: Write | None = None,
    **options: Any,
) -> Tensor:
    """`model.generate(**inputs, …)`, but equal prompts with equal images are read once.

    Returns `(B, P + new)`: the tokens that `model.generate` would write, up to the order of float sums. What
    cannot be shared (all prompts differ, videos, a cache that is not dynamic, beams) is generated as always.
    model: of transformers, or peft's around one. write: what to call for `model.generate`.
    """
    write = write or model.generate
    groups = equal_prompts(model, inputs) if _is_plain(generation_config) else []
    if not 0 < len(groups) < len(inputs["input_ids"]):
        return write(**inputs, generation_config=generation_config, **options)
    place = {row: k for k, group in enumerate(groups) for row in group}
    prompts = read(model, first_rows(model, inputs, groups), generation_config, write=write)
    return prompts.go_on([place[row] for row in range(len(place))], generation_config=generation_config, **options)


@contextmanager
def without_sampling_defaults(model: Any) -> Iterator[None]:
    """Within the block a model of transformers has an empty generation configuration.

    So what is given to `generate` is all there is, and nothing from a file beside the weights is merged in.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def reading_once(model: Any) -> Iterator[None]:
    """Within the block `model.generate(generation_config=…, **inputs)` is this module's `generate`."""
    write, was_replaced = model.generate, "generate" in vars(model)

    def instead(*, generation_config: GenerationConfig, **inputs: Tensor) -> Tensor:
        return generate(model, inputs, generation_config, write=write)

    model.generate = instead
    try:
        yield
    finally:
        if was_replaced:
            model.generate = write
        else:
            del model.generate


@dataclass(frozen=True)
class Prompts:
    """Prompts that a model has read up to their last tokens, from which any number of completions can go on.

    inputs: their ids and mask, `(U, P)`. rope_deltas: `(U, 1)` of M-RoPE, None without.
    """

    model: Any
    write: Write
    inputs: Mapping[str, Tensor]
    cache: DynamicCache
    rope_deltas: Tensor | None

    def go_on(self, rows: Sequence[int], **options: Any) -> Tensor:
        """What `model.generate` returns for these prompts, each as often as it stands in `rows`."""
        order = torch.tensor(rows, device=self.inputs["input_ids"].device)
        cache = copy.deepcopy(self.cache)
        cache.reorder_cache(order)
        if self.rope_deltas is not None:
            without_adapters(self.model).base_model.rope_deltas = self.rope_deltas[order]
        inputs = {name: value[order] for name, value in self.inputs.items()}
        return self.write(**inputs, past_key_values=cache, **options)


def read(model: Any, inputs: Mapping[str, Tensor], config: GenerationConfig, *, write: Write | None = None) -> Prompts:
    """Reads U prompts, padded on the left, and their images; not their last tokens, with which generation begins."""
    write = write or model.generate
    cut = {name: value[:, :-1] if name in ROWS else value for name, value in inputs.items()}
    ends = {"pad_token_id": config.pad_token_id, "eos_token_id": config.eos_token_id}
    # One token that nobody wants, so that `generate` counts positions and encodes images as it always does.
    once = GenerationConfig(max_new_tokens=1, do_sample=False, return_dict_in_generate=True, **ends)
    cache = write(**cut, generation_config=once).past_key_values
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    return Prompts(model, write, texts, cache, getattr(without_adapters(model).base_model, "rope_deltas", None))


def _is_plain(config: GenerationConfig) -> bool:
    """Whether tokens come one after the other, with a dynamic cache."""
    is_one_by_one = (config.num_beams or 1) == (config.num_return_sequences or 1) == 1
    return is_one_by_one and config.use_cache is not False and config.cache_implementation is None


def equal_prompts(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[list[int]]:
    """Rows with the same prompt and the same images, in the order of their first members; none where that cannot
    be told of these inputs."""
    given = {name for name, value in inputs.items() if value is not None}
    if not given <= {*ROWS, *IMAGES} or inputs["input_ids"].shape[1] < 2:
        return []
    images = images_by_row(inputs, _image_token(model))
    return [] if images is None else equal_rows(inputs["input_ids"], inputs.get("attention_mask"), images)


def first_rows(model: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The inputs of each group's first row."""
    firsts = [group[0] for group in groups]
    chosen = {name: inputs[name][firsts] for name in ROWS if inputs.get(name) is not None}
    images = images_by_row(inputs, _image_token(model)) or []
    names = [name for name in IMAGES if inputs.get(name) is not None]
    return chosen | {name: torch.cat([images[row][k] for row in firsts]) for k, name in enumerate(names)}


def _image_token(model: Any) -> int:
    """The id that stands where an image's features go; -1 for a model without one."""
    return int(getattr(model.config, "image_token_id", -1))  # FastVLM's configuration knows its own by this name too


def images_by_row(inputs: Mapping[str, Tensor], image_token: int) -> list[list[Tensor]] | None:
    """What `IMAGES` names of each row's images, told apart by how many image tokens a row has.

    An image token stands for as many rows of `pixel_values` as any other of its batch: its patches with
    Qwen's families, a part of a tile with others. None where that does not come out even.
    """
    ids, pixels, grids = inputs["input_ids"], inputs.get("pixel_values"), inputs.get("image_grid_thw")
    if pixels is None:
        return [[] for _ in ids]
    tokens = (ids == image_token).sum(1).tolist()
    total = sum(tokens)
    if not total or any(n * len(pixels) % total for n in tokens):
        return None
    sizes = [n * len(pixels) // total for n in tokens]
    found = [[part] for part in pixels.split(sizes)]
    if grids is not None:
        ends = torch.tensor(sizes).cumsum(0)
        of_row = torch.searchsorted(ends, grids.prod(1).cumsum(0).cpu())  # each image ends in its row's part
        counts = torch.bincount(of_row, minlength=len(sizes)).tolist()
        for row, of_images in zip(found, grids.split(counts), strict=True):
            row.append(of_images)
    return found


def equal_rows(ids_MP: Tensor, mask_MP: Tensor | None, images: Sequence[Sequence[Tensor]]) -> list[list[int]]:
    """Rows with the same prompt and the same images, in the order of their first members.

    mask_MP: 0 where a prompt is padded; None where none is. images: for each row the tensors that hold its images.
    """
    masks = torch.ones_like(ids_MP).tolist() if mask_MP is None else mask_MP.tolist()
    found: dict[tuple[int, ...], list[list[int]]] = {}
    for i, (ids, mask) in enumerate(zip(ids_MP.tolist(), masks, strict=True)):
        prompt = tuple(token for token, is_there in zip(ids, mask, strict=True) if is_there)
        alike = found.setdefault(prompt, [])
        group = next((group for group in alike if _equal(images[group[0]], images[i])), None)
        if group is None:
            alike.append([i])
        else:
            group.append(i)
    return sorted(group for alike in found.values() for group in alike)


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
