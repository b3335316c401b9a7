"""A live view of a training run: a table that stays in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from transformers import TrainerCallback

from segrl.jobs.progress import NowAndThen
from segrl.text import duration
from segrl.training.speed import TIMED


class Progress(TrainerCallback):
    """Shows the step, reward, terms, gIoU, answer status, seconds by phase, tokens per second and the time left.

    say: where one-line messages of a run without a terminal go (`Progress.say`).
    """

    def __init__(self, console: Console | None = None, say: Callable[[str], None] | None = None) -> None:
        self._console = console or Console()
        self._plain_say = say
        self._live: Live | None = None
        self._begun, self._now_and_then = 0.0, NowAndThen(at_once=True)
        self._first_step = 0
        self._first: dict[str, float] = {}

    def say(self, line: str) -> None:
        """A message, above the table where there is one."""
        if self._live is None and self._plain_say is not None:
            self._plain_say(line)
        else:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun, self._first_step = time.monotonic(), state.global_step
        if self._console.is_terminal and state.is_world_process_zero:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not state.is_world_process_zero or "train_runtime" in logs:
            return
        shown = summary_line(logs)
        for name, value in shown.items():
            self._first.setdefault(name, value)
        clock = self._clock(state, logs, int(args.logging_steps))
        if self._live is not None:
            bar = ProgressBar(total=max(state.max_steps, 1), completed=state.global_step, width=60)
            self._live.update(Group(bar, self._table(state, shown, clock)))
        elif self._now_and_then.is_due(is_last=state.global_step == state.max_steps):
            figures = "  ".join(f"{name} {value:.3g}" for name, value in shown.items())
            self._console.print(
                f"step {state.global_step}/{state.max_steps}  {figures}  {clock}", highlight=False, soft_wrap=True
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _clock(self, state: Any, logs: Mapping[str, Any], steps: int) -> str:
        done = state.global_step - self._first_step
        each = (time.monotonic() - self._begun) / max(done, 1)
        left = each * (state.max_steps - state.global_step)
        parts = [f"{each:.2f} s/step{_phases(logs, steps)}"]
        if logs.get("tokens_per_second"):
            parts.append(f"{logs['tokens_per_second']:,.0f} tokens/s")
        return ", ".join([*parts, f"{duration(left)} left"])

    def _table(self, state: Any, shown: Mapping[str, float], clock: str) -> Table:
        table = Table(title=f"step {state.global_step} of {state.max_steps} · {clock}", title_justify="left")
        for column in ("", "first", "now"):
            table.add_column(column, justify="right" if column else "left")
        for name, value in shown.items():
            table.add_row(name, f"{self._first[name]:.3g}", f"{value:.3g}")
        return table


def summary_line(logs: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of a step that a person watches, in the order shown."""
    names = {
        "reward": "reward",
        "giou": "gIoU",
        "held_out/giou": "gIoU, greedy",
        "loss": "loss",
        "mean_token_accuracy": "token accuracy",
    }
    shown = {label: logs[key] for key, label in names.items() if logs.get(key) is not None}
    shown |= {key.split("/")[1]: v for key, v in logs.items() if key.endswith("/mean") and key.startswith("rewards/")}
    statuses = {key.split("/")[1]: v for key, v in logs.items() if key.startswith("status/")}
    shown |= {f"answers {name}": value for name, value in statuses.items() if value or name == "ok"}
    for key, label in (("completions/mean_length", "tokens"), ("kl", "KL"), ("entropy", "entropy")):
        if logs.get(key) is not None:
            shown[label] = logs[key]
    return {name: float(value) for name, value in shown.items() if value is not None}


def _phases(logs: Mapping[str, Any], steps: int) -> str:
    """Seconds per step of each phase, from a log of so many steps; empty where there is only one phase."""
    spent = [f"{phase} {logs[key] / steps:.2f}" for phase in TIMED if logs.get(key := f"seconds/{phase}")]
    return f" ({', '.join(spent)})" if len(spent) > 1 else ""
