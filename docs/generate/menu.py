"""The menu of the site, fitted to the pages that there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def menu(nav: Iterable[Any], pages: set[str]) -> list[Any]:
    """The entries of `nav` that have a page, and the pages that stand nowhere in it as a last part, "More".

    nav: as in mkdocs.yml, paths or `{title: path or entries}`; a part without entries goes too.
    """
    kept = _existing(nav, pages)
    lacking = sorted(pages - set(_listed(kept)))
    return [*kept, {"More": lacking}] if lacking else kept


def _existing(nav: Iterable[Any], pages: set[str]) -> list[Any]:
    return [entry for entry in (_entry(entry, pages) for entry in nav) if entry]


def _entry(entry: Any, pages: set[str]) -> Any:
    """The entry without what has no page; None if nothing is left."""
    if isinstance(entry, str):
        return entry if entry in pages else None
    ((title, inner),) = entry.items()
    found = _entry(inner, pages) if isinstance(inner, str) else _existing(inner, pages)
    return {title: found} if found else None


def _listed(nav: Iterable[Any]) -> Iterator[str]:
    for entry in nav:
        for inner in entry.values() if isinstance(entry, dict) else (entry,):
            if isinstance(inner, str):
                yield inner
            else:
                yield from _listed(inner)
