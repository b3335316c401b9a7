"""Callbacks for TRL's trainers: step log, rollout log, findings, completion marker, and the live view of a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from transformers import TrainerCallback

from segrl.devices import wait_for_all
from segrl.errors import SegrlError
from segrl.files import append_rows, read_rows
from segrl.jobs.progress import NowAndThen
from segrl.rewards.trl_adapter import ROLLOUT_COLUMN, TrlRewards
from segrl.text import duration
from segrl.training import diagnosis
from segrl.training.checkpoints import RunDir, drop_others, mark_complete
from segrl.training.sections import CheckpointSection, RolloutLog
from segrl.training.sharding import own_part
from segrl.training.speed import TIMED


class StepLog(TrainerCallback):
    """Appends one row per logged step to steps.jsonl: TRL's metrics, seconds, and the completions' hash."""

    def __init__(self, run: RunDir, rewards: TrlRewards | None) -> None:
        self._run, self._rewards = run, rewards
        self._since = time.monotonic()
        self._tokens_before = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()
        rows = read_rows(self._run.steps)
        # GRPO's token count is restored with the trainer's state; SFT's begins again at nothing.
        if rows and self._rewards is None:
            self._tokens_before = rows[-1]["num_tokens"]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not state.is_world_process_zero or "train_runtime" in logs:
            return  # the last of these is the summary that Trainer logs once at the end
        now = time.monotonic()
        row: dict[str, Any] = {"step": state.global_step}
        if self._rewards is not None and self._rewards.last is not None:
            row["completions_sha"] = self._rewards.last.completions_sha
        row |= {key: plain(value) for key, value in logs.items()}
        if self._rewards is None:
            row["num_tokens"] += self._tokens_before
        row["seconds"] = round(now - self._since, 3)
        self._since = now
        append_rows(self._run.steps, [row])


def plain(value: Any) -> Any:
    """A metric as JSON: undefined is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Rollouts(TrainerCallback):
    """Moves the sampled rows of TRL's completions tables, advantages included, into rollouts.jsonl.

    TRL writes a step's table after its `on_log`, so each is read at the next event. A rollout that
    serves several updates is in the table of each, and the last one of a run is written twice: each
    is kept once. One row per group: step, group (its place in the batch), example_id, image_id,
    image_hw, query, tags, truth (one RLE per target) and completions, each with text, status,
    truncated, tokens, prompts (original pixels), mask (RLE), iou, terms, reward and advantage.
    """

    def __init__(self, run: RunDir, wanted: RolloutLog, num_generations: int) -> None:
        self._run, self._wanted, self._num_generations = run, wanted, num_generations
        self._last_kept = 0

    def _collect(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        for path in sorted(Path(args.output_dir, "completions").glob("*.parquet")):
            groups = [group for group in self._groups(path) if group["step"] > self._last_kept]
            if groups:
                append_rows(self._run.rollouts, groups)
                self._last_kept = groups[-1]["step"]
            path.unlink()

    on_step_begin = on_save = on_train_end = _collect

    def _groups(self, path: Path) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as parquet

        table = parquet.read_table(path, columns=[ROLLOUT_COLUMN, "advantage"]).to_pylist()
        rows = [
            {**json.loads(row[ROLLOUT_COLUMN]), "advantage": row["advantage"]}
            for row in table[: self._wanted.groups * self._num_generations]
            if row[ROLLOUT_COLUMN]
        ]
        for group, members in groupby(enumerate(rows), key=lambda item: item[0] // self._num_generations):
            completions = []
            for _, row in members:
                completions.append({**row.pop("completion"), "advantage": row.pop("advantage")})
            yield {"step": row.pop("step"), "group": group, **row, "completions": completions}


class CompletionMarker(TrainerCallback):
    """Marks each checkpoint as whole and removes what `rule` does not keep.

    Comes after every callback that writes something on a save.
    """

    def __init__(self, run: RunDir, settings: Any, rule: CheckpointSection) -> None:
        self._run, self._settings, self._rule = run, settings, rule

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from segrl.policies import write_settings

        wait_for_all()  # each process writes its own random state
        if state.is_world_process_zero:
            checkpoint = self._run.checkpoints / f"checkpoint-{state.global_step}"
            write_settings(checkpoint, self._settings)
            mark_complete(checkpoint)
            drop_others(self._run, self._rule)


EVERY_ROWS = 5
"""After how many logged steps the logs are diagnosed again; a number that is not finite is reported at once."""


class Findings(TrainerCallback):
    """One line for each finding when it appears, with its evidence and what to change.

    Comes after the step log. A finding that goes and comes again is said again.
    """

    def __init__(self, run: RunDir, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._groups: list[diagnosis.GroupFacts] = []
        self._read_to = 0
        self._known: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._rows = read_rows(self._run.steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or not state.is_world_process_zero or "train_runtime" in logs:
            return
        self._rows.append({"step": state.global_step} | {key: plain(value) for key, value in logs.items()})
        if len(self._rows) % EVERY_ROWS == 0 or diagnosis.not_finite(self._rows[-1:]) is not None:
            self._diagnose(state.global_step)

    def _diagnose(self, step: int) -> None:
        self._groups += self._new_groups(self._run.rollouts)
        findings = diagnosis.diagnose(self._rows, self._groups)
        for finding in findings:
            if finding.name not in self._known:
                self._say(f"step {step}: {finding}")
        self._known = {finding.name for finding in findings}

    def _new_groups(self, path: Path) -> list[diagnosis.GroupFacts]:
        """The groups that were logged since they were read last."""
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read_to)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read_to += sum(map(len, whole))
        return [diagnosis.facts(json.loads(line)) for line in whole]


class StopWhenBroken(TrainerCallback):
    """Ends a run whose weights are no numbers any more, before a checkpoint of them is written.

    Raises SegrlError with the finding `not_finite`.
    """

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite((logs or {}).get(name, 0.0))]
        if broken and not _weights_are_finite(kwargs["model"], args.device):
            evidence = f"{' and '.join(broken)} and the weights are not finite."
            raise SegrlError(f"step {state.global_step}: {diagnosis.broken_by(evidence)}")


def _weights_are_finite(model: Any, device: Any) -> bool:
    """Of all processes together, each of which may hold a part."""
    finite = all(bool(own_part(weights).isfinite().all()) for weights in model.parameters())
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return finite
    worst = torch.tensor(int(finite), device=device)
    torch.distributed.all_reduce(worst, torch.distributed.ReduceOp.MIN)
    return bool(worst)


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
