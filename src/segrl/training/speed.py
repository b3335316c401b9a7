"""What makes a step faster, and where its time goes.

An image that several rows of a batch share is encoded once: GRPO repeats each query's image for every
completion of its group, in the rollout and again in the update, and the vision tower would encode every
copy. Equal images give equal features, so this changes nothing but the time.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from segrl.rewards.trl_adapter import TrlRewards
from segrl.training.held_out import HeldOut

TIMED = ("rollout", "reward", "update", "evaluation")


class Phases(TrainerCallback):
    """Adds to each log, before anything writes it, the seconds since the last log (of this process) by phase.

    `seconds/rollout`: from the beginning of a step, or of its next micro-batch, to where the reward
    begins: generation and the passes over what it gave. `seconds/reward`: texts to rewards.
    `seconds/update`: the rest of the step. `seconds/evaluation`: held-out examples, where there were
    some. `tokens_per_second`: generated tokens of all processes over the rollout's seconds; for SFT
    the tokens trained on over the update's. They stand in `logs`, so trackers get them too.
    """

    def __init__(self, rewards: TrlRewards | None, held_out: HeldOut | None) -> None:
        self._rewards, self._held_out = rewards, held_out
        self._tokens_before = 0.0
        self._clear()

    def _clear(self) -> None:
        self._seconds = dict.fromkeys(("rollout", "reward", "step"), 0.0)
        self._rollouts = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clear()
        self._step_began = self._part_began = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = self._part_began = time.monotonic()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._count()
        self._part_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._count()
        self._seconds["step"] += time.monotonic() - self._step_began

    def _count(self) -> None:
        """Takes over the batch that was scored since this part of the step began, if there was one."""
        while self._rewards is not None and self._rewards.timed:
            begun, ended = self._rewards.timed.popleft()
            self._seconds["rollout"] += begun - self._part_began
            self._seconds["reward"] += ended - begun
            self._rollouts += 1

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "train_runtime" in logs:
            return
        spent = self._seconds
        update = spent["step"] - spent["rollout"] - spent["reward"]
        tokens, over = self._tokens(args, logs), spent["rollout"] if self._rewards is not None else update
        if tokens and over > 0:
            logs["tokens_per_second"] = round(tokens / over, 1)
        if self._rewards is not None:
            logs |= {f"seconds/{phase}": round(spent[phase], 3) for phase in ("rollout", "reward")}
        logs["seconds/update"] = round(update, 3)
        if self._held_out is not None:
            logs |= self._held_out.take()
        self._clear()

    def _tokens(self, args: Any, logs: dict[str, Any]) -> float:
        if self._rewards is not None:
            return (logs.get("completions/mean_length") or 0.0) * args.generation_batch_size * self._rollouts
        now = float(logs.get("num_tokens") or 0.0)
        since, self._tokens_before = now - self._tokens_before, now
        return since


def add_first(trainer: Any, *callbacks: TrainerCallback) -> None:
    """Puts callbacks before all others, trackers included, so that what they add to a log is seen by them."""
    trainer.callback_handler.callbacks[:0] = callbacks


def share_images(model: nn.Module) -> bool:
    """Makes a Qwen-VL model's vision tower encode equal images of a call once, in training and generation alike.

    Returns whether `model` has such a tower (`visual`, called with patch rows and `grid_thw`);
    another model is left as it is. Calling it twice changes nothing more.
    """
    tower = next((module for name, module in model.named_modules() if name.split(".")[-1] == "visual"), None)
    if tower is None or not hasattr(tower, "spatial_merge_size"):
        return False
    if not getattr(tower, "segrl_shares_images", False):
        tower.forward = _sharing(tower.forward)
        tower.segrl_shares_images = True
    return True


def _sharing(encode: Any) -> Any:
    @functools.wraps(encode)
    def forward(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        sizes = grid_thw.prod(-1).tolist()
        images = hidden_states.split(sizes)
        place = first_equal(images, grid_thw.tolist())
        firsts = sorted(set(place))
        if len(firsts) == len(images):
            return encode(hidden_states, grid_thw=grid_thw, **kwargs)
        output = encode(torch.cat([images[i] for i in firsts]), grid_thw=grid_thw[firsts], **kwargs)
        order = [firsts.index(i) for i in place]
        return _hand_out(output, [sizes[i] for i in firsts], order)

    return forward


def first_equal(images: Sequence[torch.Tensor], grids: Sequence[Sequence[int]]) -> list[int]:
    """For each image, the index of the first one with the same grid and the same values."""
    marks = torch.stack([image[:, ::7].sum(dtype=torch.float64) for image in images]).tolist()
    seen: dict[tuple[Any, ...], list[int]] = {}
    place = []
    for i, image in enumerate(images):
        alike = seen.setdefault((*grids[i], marks[i]), [])
        first = next((j for j in alike if torch.equal(images[j], image)), i)
        if first == i:
            alike.append(i)
        place.append(first)
    return place


def _hand_out(output: Any, sizes: Sequence[int], order: Sequence[int]) -> Any:
    """Features of distinct images, `sizes[k]` patches each → those of the images in `order`, however deep they lie."""
    if isinstance(output, torch.Tensor):
        patches_per_row = sum(sizes) // output.shape[0]
        parts = output.split([size // patches_per_row for size in sizes])
        return torch.cat([parts[k] for k in order])
    if isinstance(output, dict):  # ModelOutput is one; its class keeps its fields
        return type(output)(**{key: _hand_out(value, sizes, order) for key, value in output.items()})
    if isinstance(output, (list, tuple)):
        return type(output)(_hand_out(value, sizes, order) for value in output)
    return output


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed blocks rather than to give them back to the system.

    Every forward pass allocates the same large tensors again; by default each costs a system call
    and a page fault per 4 KiB, a quarter of the time of a tiny policy's training step. Returns
    whether the C library took it; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
