"""Held-out examples measured during training, with the code that measures before and after it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from segrl.datasets import load
from segrl.errors import RecipeError
from segrl.evaluation import EvalRecord, evaluate, summarize, write_jsonl
from segrl.metrics import METRICS
from segrl.text_to_masks import TextToMasks
from segrl.training.checkpoints import RunDir
from segrl.training.parts import PolicyParts
from segrl.training.recipe import EvaluationSection, Recipe
from segrl.types import Example


class HeldOut(TrainerCallback):
    """Every `every` steps: greedy answers of the policy as it is to the held-out examples.

    Records go to `evaluation/step-N.jsonl`, the metrics (`held_out/giou`, …) and the seconds into the
    step's log. Random states are left as they were, so a run is the same with and without it. Several
    processes share the examples.
    """

    def __init__(
        self, trainer: Any, text_to_masks: TextToMasks, policy: PolicyParts, section: EvaluationSection, run: RunDir
    ) -> None:
        self._trainer, self._text_to_masks, self._policy, self._section, self._run = (
            trainer,
            text_to_masks,
            policy,
            section,
            run,
        )
        self._examples = load(section.dataset.name, **section.dataset.options)
        self._chosen = spread(len(self._examples), section.examples)
        self._found: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._section.every:
            return
        begun = time.monotonic()
        records = self._measure()
        if state.is_world_process_zero:
            write_jsonl(records, self._run.held_out(state.global_step))
        summary = summarize(records)
        self._found = {f"held_out/{name}": summary[name] for name in METRICS if summary[name] is not None}
        self._found["seconds/evaluation"] = round(time.monotonic() - begun, 3)

    def take(self) -> dict[str, float]:
        """What was measured since this was asked last, as a log holds it; empty if nothing was."""
        found, self._found = self._found, {}
        return found

    def _measure(self) -> list[EvalRecord]:
        from trl.models import unwrap_model_for_generation

        accelerator, args = self._trainer.accelerator, self._trainer.args
        mine = self._chosen[accelerator.process_index :: accelerator.num_processes]
        checkpointing = args.gradient_checkpointing_kwargs
        with (
            random_states_kept(),
            unwrap_model_for_generation(
                self._trainer.model_wrapped, accelerator, gradient_checkpointing_kwargs=checkpointing
            ) as model,
        ):
            records = self._answers(model, [self._examples[i] for i in mine])
        return _in_order(records, accelerator)

    def _answers(self, model: Any, examples: Sequence[Example]) -> list[EvalRecord]:
        from segrl.policies.transformers_policy import TransformersPolicy

        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters stay in it
        policy = TransformersPolicy(inner, self._policy.processor, self._policy.settings)
        section = self._section
        return evaluate(
            policy, self._text_to_masks, examples, batch_size=section.batch_size, max_new_tokens=section.max_new_tokens
        )


def check_held_out(recipe: Recipe, config: Any) -> None:
    """Refuses what evaluation during training cannot do; raises RecipeError."""
    section = recipe.evaluation
    if section is None or not section.every:
        return
    if section.every % int(config.logging_steps):
        raise RecipeError(
            f"evaluation.every ({section.every}) must be a multiple of trainer.logging_steps ({config.logging_steps}): "
            "what is measured goes into the step's log"
        )
    if getattr(config, "fsdp", None):
        raise RecipeError("evaluation.every: FSDP shards the weights; evaluate the checkpoints after training instead")


def spread(n: int, wanted: int | None) -> list[int]:
    """`wanted` indices below `n`, evenly spread; all of them for None or too many.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    if wanted is None or wanted >= n:
        return list(range(n))
    return [round(i) for i in np.linspace(0, n - 1, wanted)]


def _in_order(records: list[EvalRecord], accelerator: Any) -> list[EvalRecord]:
    """The records of all processes, each of which had every n-th example, in the examples' order."""
    if accelerator.num_processes == 1:
        return records
    shares: list[list[EvalRecord] | None] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(shares, records)
    full = [share or [] for share in shares]
    return [share[i] for i in range(len(full[0])) for share in full if i < len(share)]


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Whatever the block draws, the random states of Python, numpy and torch are afterwards as before."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
    random.setstate(python)
    np.random.set_state(legacy)
