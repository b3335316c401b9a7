from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console

from segrl.training.callbacks import Progress, summary_line

LOGS = {
    "loss": 0.1,
    "reward": 0.5,
    "giou": 0.25,
    "rewards/iou/mean": 0.25,
    "rewards/format/mean": None,
    "status/ok": 0.75,
    "status/truncated": 0.25,
    "status/no_answer": 0.0,
    "completions/mean_length": 40.0,
    "held_out/giou": 0.3,
    "seconds/rollout": 3.0,
    "seconds/reward": 0.5,
    "seconds/update": 1.5,
    "tokens_per_second": 1234.5,
}
ARGS = SimpleNamespace(logging_steps=2)


def show(terminal: bool, steps: int) -> str:
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=terminal, width=80))
    state = SimpleNamespace(global_step=0, max_steps=10, is_world_process_zero=True)
    progress.on_train_begin(ARGS, state, None)
    for step in range(1, steps + 1):
        state.global_step = step
        progress.on_log(ARGS, state, None, logs={**LOGS, "reward": step / 10})
    progress.on_log(ARGS, state, None, logs={"train_runtime": 1.0})
    progress.on_train_end(ARGS, state, None)
    return screen.getvalue()


def test_the_figures_that_a_person_watches():
    shown = summary_line(LOGS)
    assert list(shown) == [
        "reward",
        "gIoU",
        "gIoU, greedy",
        "loss",
        "iou",
        "answers ok",
        "answers truncated",
        "tokens",
    ]


def test_plain_lines_come_seldom_and_at_the_end():
    lines = show(terminal=False, steps=10).splitlines()
    assert [line.split()[1] for line in lines] == ["1/10", "10/10"]
    assert "gIoU 0.25" in lines[0]
    assert "(rollout 1.50, reward 0.25, update 0.75), 1,234 tokens/s, " in lines[0]
    assert "left" in lines[0]


def test_a_terminal_keeps_one_table():
    screen = show(terminal=True, steps=3)
    assert "step 3 of 10" in screen
    assert "answers truncated" in screen


def test_messages_go_above_the_table_or_where_lines_go():
    said, screen = [], io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True, width=80), say=said.append)
    progress.say("before")
    progress.on_train_begin(ARGS, SimpleNamespace(global_step=0, max_steps=1, is_world_process_zero=True), None)
    progress.say("[3] during")
    progress.on_train_end(ARGS, None, None)
    assert said == ["before"]
    assert "[3] during" in screen.getvalue()
