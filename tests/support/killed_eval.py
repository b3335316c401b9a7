"""python killed_eval.py ROOT N KILLS [command]: evaluations of N examples, killed that many times at random moments.

Prints how often one was killed and how many came to their end, ROOT/run0 and so on. Each start is a
fork, so that the imports are paid for once. With `command` it is the whole of `segrl eval`, tables and page included;
without, what the command calls.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from eval_samples import command_words, write_examples

from segrl.cli.app import app
from segrl.evaluation import EvalRecord, EvalSettings, Share, run
from segrl.evaluation.run import Loaded

Evaluate = Callable[[EvalSettings, Path], object]


def main(root: Path, n: int, wanted: int, evaluate: Evaluate) -> None:
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    settings = write_examples(root, n)
    evaluate(settings, root / "warm")
    _slow_down()
    draw, kills, runs, ended = random.Random(0), 0, 0, False
    while kills < wanted or not ended:
        ended = start(evaluate, settings, root / f"run{runs}", draw, is_killed=kills < wanted)
        kills, runs = kills + (not ended), runs + ended
    print(kills, runs)


def by_run(settings: EvalSettings, out: Path) -> None:
    """What the command calls."""
    run(settings, out, share=Share())


def by_command(settings: EvalSettings, out: Path) -> None:
    """`segrl eval` with the words for these settings."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        app(command_words(settings, out), standalone_mode=False)


def start(evaluate: Evaluate, settings: EvalSettings, out: Path, draw: random.Random, *, is_killed: bool) -> bool:
    """One start, killed soon after it wrote something, or at any other time; whether it came to its end."""
    before, child = size(out / "journal"), os.fork()
    if child == 0:
        try:
            evaluate(settings, out)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(3)
    while draw.random() < 0.98 and size(out / "journal") <= before and not (out / "records.jsonl").exists():
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.05))
    if is_killed:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def size(journal: Path) -> int:
    """Bytes of the journal's files, those that vanish meanwhile left out."""
    try:
        return sum(path.stat().st_size for path in journal.glob("*.lines"))
    except FileNotFoundError:
        return 0


def _slow_down() -> None:
    """Makes each example take a few milliseconds, so that kills land between them as well as in them."""
    module = sys.modules["segrl.evaluation.run"]
    answer = module._answer_window

    def slowly(loaded: Loaded, places: Sequence[int]) -> list[EvalRecord]:
        time.sleep(0.004)
        return answer(loaded, places)

    module._answer_window = slowly


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), by_command if "command" in sys.argv[4:] else by_run)
