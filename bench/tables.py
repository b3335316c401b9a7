"""A table of a page of the documentation, which a measurement writes between its markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segrl.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def write_table(program: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Puts `lines` between the markers `<!-- table of PROGRAM: begin -->` and `… end -->`.

    Raises ValueError for a page without them.
    """
    begin, end = (f"<!-- table of {program}: {which} -->" for which in ("begin", "end"))
    before, begins, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"{page} has no place for the table of {program}: {begin} … {end}")
    write_atomically(page, "\n".join((before + begin, "", *lines, "", end + after)))
