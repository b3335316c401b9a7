"""How far long work is: a bar on a terminal, a line every few seconds elsewhere, both on standard error.

with Progress("images") as progress:
    progress.update(done, total)            # 12/40 images, about 2.5 min left
    progress.update(done, total, "gIoU 0.61")
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from segrl.text import duration

EVERY_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "image"), counted(2, "query")
    ('1 image', '2 queries')
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


class NowAndThen:
    """Whether it is time to say something again: every `EVERY_SECONDS`. at_once: also right away, else not before."""

    def __init__(self, at_once: bool = False) -> None:
        self._said = float("-inf") if at_once else time.monotonic()

    def is_due(self, is_last: bool = False) -> bool:
        """True at most every few seconds, and for what is last; it is then said."""
        now = time.monotonic()
        if not is_last and now - self._said < EVERY_SECONDS:
            return False
        self._said = now
        return True


class Estimate:
    """How long the rest takes, by the pace since the first result: it came with the loading of the model.

    now: seconds of any steady clock.
    """

    def __init__(self, now: float) -> None:
        self._first, self._last = (0, now), (0, now)
        self._total = 0

    def update(self, done: int, total: int, now: float) -> None:
        """`done` of `total` are finished."""
        if not self._first[0]:
            self._begun, self._first = self._first[1], (done, now)
        self._last, self._total = (done, now), total

    def left(self, now: float) -> float | None:
        """Seconds; None before there was a first result."""
        (first, since), (done, seen) = self._first, self._last
        if not done:
            return None
        pace = (seen - since) / (done - first) if done > first else (seen - self._begun) / done
        return max(0.0, pace * (self._total - done) - (now - seen))


class _TimeLeft(ProgressColumn):
    def __init__(self, estimate: Estimate, before_first: str) -> None:
        super().__init__()
        self._estimate, self._before_first = estimate, before_first

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"in {duration(task.finished_time or 0)}")
        left = self._estimate.left(time.monotonic())
        return Text(self._before_first if left is None else f"about {duration(left)} left")


class Progress:
    """A context manager around the work, so that the bar ends with it. noun: what is counted, in the plural."""

    def __init__(
        self,
        noun: str,
        total: int | None = None,
        *,
        console: Console | None = None,
        before_first: str = "loading the model",
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._noun = noun
        self._estimate = Estimate(time.monotonic())
        self._bar = Bar(
            SpinnerColumn(finished_text="[green]✓[/]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            _TimeLeft(self._estimate, before_first),
            console=self.console,
        )
        self._task = self._bar.add_task(escape(f"{noun},"), total=total)
        self._begun, self._now_and_then = time.monotonic(), NowAndThen()

    def __enter__(self) -> Progress:
        self._begun, self._now_and_then = time.monotonic(), NowAndThen()
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.update(self._task, visible=bool(self._bar.tasks[0].completed))
            self._bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` are finished. note: figures so far."""
        now = time.monotonic()
        self._estimate.update(done, total, now)
        what = f"{self._noun}, {note}," if note else f"{self._noun},"
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, total=total, description=escape(what))
        elif self._now_and_then.is_due(is_last=done == total):
            left = self._estimate.left(now) or 0.0
            when = f"in {duration(now - self._begun)}" if done == total else f"about {duration(left)} left"
            self.say(escape(f"{done}/{total} {what} {when}"))

    def say(self, line: str) -> None:
        """A line of rich's markup, above the bar where there is one."""
        self.console.print(line, soft_wrap=True)
