"""Held-out examples measured during training, with the code that measures before and after it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from segrl.datasets.rows import spread
from segrl.errors import RecipeError
from segrl.evaluation import EvalRecord, Loaded, describe, write_evaluation
from segrl.evaluation.run import answers_to
from segrl.policies.checkpoint import without_adapters
from segrl.training.checkpoints import RunDir
from segrl.training.diagnosis import Finding, same_answer_in
from segrl.training.parts import Parts
from segrl.training.recipe import Recipe, eval_settings

METRICS = ("giou", "ciou", "s_measure", "parse_rate")
"""What goes into the step's log; metrics.json has every metric."""


class HeldOut(TrainerCallback):
    """Every `every` steps: greedy answers of the policy as it is to the held-out examples.

    Records and metrics go to `evaluation/held_out/step_N/`, as `segrl eval` writes them; METRICS (`held_out/giou`, …)
    and the seconds go into the step's log. Random states are left as they were, so a run is the same with and
    without it. Several processes share the examples.
    """

    def __init__(self, trainer: Any, parts: Parts, run: RunDir, say: Callable[[str], None] = print) -> None:
        recipe, examples = parts.recipe, parts.eval_examples
        assert recipe.evaluation is not None  # who makes this has looked
        self._trainer, self._text_to_masks, self._policy, self._run = trainer, parts.text_to_masks, parts.policy, run
        self._settings, self._every = eval_settings(recipe, recipe.policy.path), recipe.evaluation.every
        self._examples = [examples[i] for i in spread(len(examples), recipe.evaluation.examples)]
        self._found: dict[str, float] = {}
        self._say, self._said_same = say, False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every:
            return
        begun = time.monotonic()
        records, description = self._measure(state.global_step)
        if state.is_world_process_zero:
            found = write_evaluation(description, records, self._run.held_out(state.global_step))["metrics"]
            values = {name: found[name]["value"] for name in METRICS}
            self._found = {f"held_out/{name}": value for name, value in values.items() if value is not None}
            self._tell(same_answer_in(records), state.global_step)
        self._found["seconds/evaluation"] = round(time.monotonic() - begun, 3)

    def _tell(self, finding: Finding | None, step: int) -> None:
        """Says a finding when it appears."""
        if finding is not None and not self._said_same:
            self._say(f"step {step}, held-out examples: {finding}")
        self._said_same = finding is not None

    def take(self) -> dict[str, float]:
        """What was measured since this was asked last, as a log holds it; empty if nothing was."""
        found, self._found = self._found, {}
        return found

    def _measure(self, step: int) -> tuple[list[EvalRecord], dict[str, Any]]:
        """The records of all processes, and what run.json says of them."""
        from trl.models import unwrap_model_for_generation

        accelerator, args = self._trainer.accelerator, self._trainer.args
        mine = range(accelerator.process_index, len(self._examples), accelerator.num_processes)
        checkpointing = args.gradient_checkpointing_kwargs
        with (
            random_states_kept(),
            unwrap_model_for_generation(
                self._trainer.model_wrapped, accelerator, gradient_checkpointing_kwargs=checkpointing
            ) as model,
        ):
            loaded = self._loaded(model, step)
            records, description = answers_to(loaded, mine), describe(loaded)
        return _in_order(records, accelerator), description

    def _loaded(self, model: Any, step: int) -> Loaded:
        from segrl.policies.transformers_policy import TransformersPolicy

        policy = TransformersPolicy(without_adapters(model), self._policy.processor, self._policy.settings)
        return Loaded(self._settings, self._examples, lambda window: policy, self._text_to_masks, {"step": step})


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
    deepspeed = getattr(config, "hf_deepspeed_config", None)
    if getattr(config, "fsdp", None) or (deepspeed is not None and deepspeed.is_zero3()):
        raise RecipeError(
            "evaluation.every: FSDP and ZeRO-3 divide the weights, and processes answer different numbers of examples; "
            "evaluate the checkpoints after training instead"
        )


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
