"""GRPO's update with each prompt, its picture included, read once per group instead of once per completion.

`training.shared_prefix: false` switches it off. What cannot be packed exactly, or would not gain, goes
TRL's own way, and one line says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from segrl.policies import one_prefill
from segrl.policies.checkpoint import without_adapters
from segrl.policies.one_prefill import equal_rows
from segrl.training.packing import MASK_SHARE, Cost, Packed, block_mask, lengths_of, mask_bytes, pack, spread, visible

Say = Callable[[str], None]

THREE_AXES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Families whose positions have three rows (M-RoPE), which the model itself counts (`get_rope_index`)."""
ONE_AXIS = ("internvl", "fast_vlm")
"""Families whose positions are 0, 1, 2, …"""
MASKED = ("sdpa", "eager", "flex_attention")
"""Attention implementations that take any mask. FlashAttention's kernels do not."""
IMAGES = ("pixel_values", "image_grid_thw", "num_images", "num_tiles", "mm_token_type_ids")
"""What TRL hands on of a batch's images for these families."""


def refusal(model: Any) -> str | None:
    """Why this model cannot read a prompt once for several completions, in a few words; None where it can."""
    config, text = model.config, model.config.get_text_config()
    if config.model_type not in THREE_AXES + ONE_AXIS:
        return f"{config.model_type} is not among {', '.join(THREE_AXES + ONE_AXIS)}"
    others = sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention"})
    if others:
        return f"the policy has layers of {', '.join(others)}"
    attention = getattr(text, "_attn_implementation", None)
    if attention not in MASKED:
        return f"attn_implementation {attention} takes no such mask; {' and '.join(MASKED)} do"
    return None


def counts_repeats(model: nn.Module) -> bool:
    """Whether batch normalisation is being trained, whose statistics depend on how often an image is encoded."""
    norms = nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, norms) and module.training for module in model.modules())


def cost_of(text: Any) -> Cost:
    """Of the language model with this configuration."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    return Cost.of_layers(text.num_hidden_layers, text.hidden_size, text.intermediate_size, queries, keys)


def positions(backbone: Any, packed: Packed, first: dict[str, Any]) -> Tensor:
    """Position ids of packed rows, as the model counts them for the prompt and one completion.

    first: `ids`, `mask` (the whole completion counted as there) and images of each group's first row.
    Returns `(R, L)`, or `(3, R, L)` for M-RoPE.
    """
    offsets = packed.offsets_RL
    if backbone.config.model_type in ONE_AXIS:
        return offsets
    if first.get("image_grid_thw") is None or first.get("mm_token_type_ids") is None:
        return offsets[None].expand(3, -1, -1)
    counted, _ = backbone.get_rope_index(
        first["ids"],
        mm_token_type_ids=first["mm_token_type_ids"],
        image_grid_thw=first["image_grid_thw"],
        attention_mask=first["mask"],
    )
    rows = [counted[:, r, first["mask"][r].bool()][:, offsets[r]] for r in range(len(offsets))]
    return torch.stack(rows, dim=1)


@contextmanager
def hidden_states_at(backbone: nn.Module, places: Tensor) -> Iterator[None]:
    """Within the block `backbone` returns, of its R × L last hidden states, those at `places`, as one row.

    So the language model's head reads the positions that are scored and no others.
    """

    def chosen(module: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
        return output

    handle = backbone.register_forward_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


class SharedPrefixTrainer(GRPOTrainer):
    """TRL's trainer whose passes over a rollout read each group's prompt once.

    `share_prefixes` switches it on; until then, and wherever it cannot or would not gain, it is GRPOTrainer.
    """

    _say: Say | None = None
    _rolls_out_groups = False
    _buffered_inputs: list[dict[str, Any]] | None

    def share_prefixes(self, say: Say = print) -> None:
        """Switches it on for a model that allows it. say: where the lines go that tell which way was taken."""
        self._said: set[str] = set()
        self._cost = cost_of(self._bare(self.model).config.get_text_config())
        self._say = say
        self._rolls_out_groups = self._can_roll_out_groups()
        why = "torch_compile would compile each length anew" if self.args.torch_compile else None
        why = why or refusal(self._bare(self.model))
        if why is not None:
            self._tell("plain", f"shared_prefix: {why}: every completion reads the prompt anew")
            self._say = None
        else:
            self._tell_of_cut_groups()

    def _can_roll_out_groups(self) -> bool:
        """Whether transformers generates, in as many passes on every process, as sharded weights need it."""
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        return not (self.use_vllm or self.args.torch_compile or (is_sharded and rows % self.num_generations))

    def _bare(self, model: Any) -> Any:
        """The model of transformers within what accelerate and peft put around it."""
        return without_adapters(self.accelerator.unwrap_model(model))

    def _tell(self, key: str, line: str) -> None:
        if self._say is not None and key not in self._said:
            self._said.add(key)
            self._say(line)

    def _tell_of_cut_groups(self) -> None:
        size, group = self.args.per_device_train_batch_size, self.num_generations
        if size % group == 0:
            return
        whole = -(-size // group) * group
        accumulated, rest = divmod(size * self.args.gradient_accumulation_steps, whole)
        more = f" with gradient_accumulation_steps: {accumulated}" if accumulated and not rest else ""
        self._tell(
            "cut",
            f"trainer.per_device_train_batch_size ({size}) cuts groups of {group}, whose prompts are then read more "
            f"than once: {whole}{more} would hold whole groups",
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, but micro-batches hold whole groups: TRL's shuffle decides in which order the groups come."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        batches = self._buffered_inputs
        if self._say is None or batches is None or batches is before or len(batches) == 1:
            return inputs
        self._buffered_inputs = regrouped(batches)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's; transformers reads each prompt once for its group, and no sampling from beside the weights."""
        with one_prefill.without_sampling_defaults(self._bare(self.model_wrapped)):
            if not self._rolls_out_groups or counts_repeats(self._bare(self.model)):
                return super()._generate_single_turn(*args, **kwargs)
            with one_prefill.reading_once(self.accelerator.unwrap_model(self.model_wrapped)):
                return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As TRL's, from packed rows where that is exact and gains."""
        batch = Batch(input_ids, attention_mask, logits_to_keep, images)
        chunks = list(batch.chunks(batch_size or len(input_ids)))
        if self._say is None or compute_aux_loss or not self._gains(model, batch, chunks):
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **images,
            )
        found = [self._packed_pass(model, batch, groups) for groups in chunks]
        logps = torch.stack([logps for logps, _ in found]).sum(0)
        entropies = torch.stack([entropy for _, entropy in found if entropy is not None]) if compute_entropy else None
        return logps, None if entropies is None else entropies.sum(0), None

    def _gains(self, model: Any, batch: Batch, chunks: Sequence[Sequence[Sequence[int]]]) -> bool:
        """Whether the packed way is open and cheaper; tells which way is taken, and why."""
        if batch.has_other_inputs or all(len(group) == 1 for groups in chunks for group in groups):
            return False
        if not all(batch.mask_MC[[i for group in groups for i in group]].any() for groups in chunks):
            return False  # every completion of a pass is left out: there is nothing to score
        if counts_repeats(self._bare(model)):
            self._tell(
                "norms",
                "shared_prefix: the image encoder trains batch normalisation, which counts how often an image is "
                "encoded: every completion reads the prompt anew",
            )
            return False
        lengths = [lengths_of(groups, batch.mask_MP, batch.mask_MC) for groups in chunks]
        packed, plain = [(len(rows), max(rows)) for rows in lengths], batch.shape
        if not self._cost.gains(packed, plain):
            share = self._cost.share(packed, plain)
            self._tell(
                "short",
                f"shared_prefix: short prompts: a group as one sequence would take {share:.2f} of the operations: "
                "every completion reads the prompt anew",
            )
            return False
        if not self._has_room(max(mask_bytes(*shape) for shape in packed), batch.ids_MP.device):
            return False
        tokens = sum(map(sum, lengths))
        self._tell(
            "shared",
            f"shared_prefix: each prompt is read once per group: {tokens:,} tokens instead of {plain[0] * plain[1]:,}",
        )
        return True

    def _has_room(self, mask: int, device: torch.device) -> bool:
        """Whether a mask of so many bytes is within `MASK_SHARE`; flex attention's is in blocks."""
        text = self._bare(self.model).config.get_text_config()
        if text._attn_implementation == "flex_attention":
            return True
        if mask <= MASK_SHARE * memory_of(device):
            return True
        self._tell(
            "mask",
            f"shared_prefix: a mask would take {mask / 1e9:.1f} GB, more than {MASK_SHARE:.0%} of the memory: every "
            "completion reads the prompt anew; a smaller per_device_train_batch_size would do, and so would "
            "attn_implementation: flex_attention on CUDA",
        )
        return False

    def _packed_pass(self, model: Any, batch: Batch, groups: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities and entropies `(M, C)` of these groups' completions, 0 for all others.

        A reference model computes no entropies.
        """
        bare = self._bare(model)
        packed = pack(groups, batch.ids_MP, batch.mask_MP, batch.ids_MC, batch.mask_MC)
        first = batch.first_of(groups)
        inputs = {
            "input_ids": packed.ids_RL,
            "attention_mask": self._mask(packed.segments_RL, bare),
            "position_ids": positions(bare.base_model, packed, first),
            **{name: first[name] for name in ("pixel_values", "image_grid_thw") if first.get(name) is not None},
        }
        with self.accelerator.autocast(), hidden_states_at(bare.base_model, packed.before_N):
            output = model(**inputs, shift_labels=packed.tokens_N[None], fused_lm_head=True)
        shape = (batch.mask_MC.shape[0], batch.mask_MC.shape[1])
        logps = spread(output.log_probs[0], packed.places_N, shape)
        return logps, None if output.entropy is None else spread(output.entropy[0], packed.places_N, shape)

    def _mask(self, segments_RL: Tensor, bare: Any) -> Any:
        attention = bare.config.get_text_config()._attn_implementation
        if attention == "flex_attention":
            return block_mask(segments_RL)
        seen = visible(segments_RL)
        if attention == "sdpa":
            return seen
        dtype = bare.get_input_embeddings().weight.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


class Batch:
    """Completions as TRL hands them over: prompts padded on the left, completions on the right."""

    def __init__(self, input_ids: Tensor, attention_mask: Tensor, width: int, images: dict[str, Any]) -> None:
        self.shape = (input_ids.shape[0], input_ids.shape[1])
        self.ids_MP, self.ids_MC = input_ids[:, :-width], input_ids[:, -width:]
        self.mask_MP, self.mask_MC = attention_mask[:, :-width], attention_mask[:, -width:]
        given = {name: value for name, value in images.items() if value is not None}
        types = given.get("mm_token_type_ids")
        self.has_other_inputs = bool(given.keys() - set(IMAGES)) or (
            types is not None and bool(types[:, -width:].any())  # images within a completion, of a tool
        )
        self.images = {} if self.has_other_inputs else split_pixel_values_by_grid(given)

    def images_of(self, row: int) -> list[Tensor]:
        """The tensors that hold the images of a row."""
        return [self.images[name][row] for name in ("pixel_values", "image_grid_thw") if name in self.images]

    def chunks(self, size: int) -> Iterator[list[list[int]]]:
        """The groups within each `size` rows, by their rows in the whole batch."""
        for start in range(0, self.shape[0], size):
            rows = range(start, min(start + size, self.shape[0]))
            part = slice(rows.start, rows.stop)
            groups = equal_rows(self.ids_MP[part], self.mask_MP[part], [self.images_of(row) for row in rows])
            yield [[start + i for i in group] for group in groups]

    def first_of(self, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What `positions` takes, and the model's image inputs: those of each group's first row."""
        firsts = [group[0] for group in groups]
        whole = torch.ones_like(self.mask_MC[firsts])
        found: dict[str, Any] = {
            "ids": torch.cat([self.ids_MP[firsts], self.ids_MC[firsts]], dim=1),
            "mask": torch.cat([self.mask_MP[firsts], whole], dim=1),
        }
        for name in ("pixel_values", "image_grid_thw"):
            if name in self.images:
                found[name] = torch.cat([self.images[name][i] for i in firsts])
        if "mm_token_type_ids" in self.images:
            found["mm_token_type_ids"] = self.images["mm_token_type_ids"][firsts]
        return found


def regrouped(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in as many batches, those of a group together; groups in the order of their first rows."""
    parts = [split_pixel_values_by_grid(batch) for batch in batches]
    whole = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    images = [
        [whole[name][i] for name in ("pixel_values", "image_grid_thw") if whole.get(name) is not None]
        for i in range(len(whole["prompt_ids"]))
    ]
    order = [i for group in equal_rows(whole["prompt_ids"], whole["prompt_mask"], images) for i in group]
    chosen = {name: taken(value, order) for name, value in whole.items()}
    return [unsplit_pixel_values_by_grid(batch) for batch in split_tensor_dict(chosen, len(batches))]


def _joined(values: Sequence[Any]) -> Any:
    """One value from those of the micro-batches: rows one after the other; what has no rows is the same in all."""
    first = values[0]
    if isinstance(first, list):
        return [row for value in values for row in value]
    return torch.cat(list(values)) if isinstance(first, Tensor) and first.ndim else first


def taken(value: Any, order: Sequence[int]) -> Any:
    """The rows `order` of a batch's entry; what has no rows is the same in all."""
    if isinstance(value, list):
        return [value[i] for i in order]
    return value[list(order)] if isinstance(value, Tensor) and value.ndim else value


def memory_of(device: torch.device) -> int:
    """Bytes of a device's memory; of this machine's for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
