"""What `segrl eval --suite general` does: the model's general ability, beside an evaluation or alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import typer

NAMES = ("general",)


@dataclass(frozen=True)
class Suite:
    """The options of the suite, as they were given."""

    name: str | None
    base: str | None
    lmms_python: Path | None
    install: bool
    limit: int | None

    def check(self) -> None:
        """Raises SegrlError for another suite, for its options without it, and under a launcher."""
        from segrl.errors import SegrlError

        given = {"--base": self.base, "--lmms-python": self.lmms_python, "--install": self.install or None}
        alone = [option for option, value in (given | {"--limit": self.limit}).items() if value is not None]
        if self.name is None and alone:
            raise SegrlError(f"{alone[0]} goes with --suite general")
        if self.name is not None and self.name not in NAMES:
            raise SegrlError(f"there is no suite {self.name!r}; there is {', '.join(NAMES)}")
        if self.name is not None and os.environ.get("WORLD_SIZE", "1") != "1":
            raise SegrlError("--suite general is started once: with --processes N lmms-eval shares its work")

    def run(self, policy: str, out: Path | None, *, batch_size: int, processes: int) -> None:
        """Runs it, shows the table and writes the page. Raises SegrlError, also where `out` is another policy's."""
        from rich.console import Console

        from segrl.cli.evaluation_tables import general_table
        from segrl.evaluation.general import RESULT, general
        from segrl.report.evaluation import write_page

        place = out or Path("runs/eval") / re.sub(r"[^\w.+]+", "_", f"general-{Path(policy).name}")
        check_suite(place, policy)
        _check_evaluation(place, policy)
        found = general(
            policy,
            place,
            base=self.base,
            python=self.lmms_python,
            install=self.install,
            limit=self.limit,
            batch_size=batch_size,
            processes=processes,
            say=typer.echo,
        )
        Console().print(general_table(found))
        typer.echo(f"scores  {place / RESULT}\nreport  {write_page(place)}")


def check_suite(place: Path, policy: str) -> None:
    """Raises DataError if `place` holds the suite's scores of another policy."""
    from segrl.evaluation.general import read_general

    if (found := read_general(place)) is not None:
        _same(place, found["run"]["checkpoint"], policy)


def _check_evaluation(place: Path, policy: str) -> None:
    """Raises DataError if `place` holds an evaluation of another policy."""
    from segrl.evaluation import EvalDir

    directory = EvalDir(place)
    if directory.run.exists():
        _same(place, directory.description()["policy"]["name"], policy)


def _same(place: Path, there: str, policy: str) -> None:
    from segrl.errors import DataError

    if there != policy:
        raise DataError(f"{place} holds an evaluation of {there}, not of {policy}: choose another --out")
