"""Where the time of a step goes, in every log: rollout, reward, update, evaluation; and tokens per second."""

from __future__ import annotations

import time
from typing import Any

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
