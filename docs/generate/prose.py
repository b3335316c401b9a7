"""Docstrings and values as Markdown."""

from __future__ import annotations

import inspect
import re
from typing import Any

_CODE = re.compile(r"(`+[^`]*`+)")


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: angle brackets are text, doctests and paragraphs on what raises are left out."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(_paragraph(text) for text in paragraphs if not text.startswith((">>>", "Raises ")))


def _paragraph(text: str) -> str:
    return text if text.startswith("    ") else "\n".join(_escaped(line) for line in text.splitlines())


def _escaped(line: str) -> str:
    """Angle brackets and bars of a line outside its code so that they are text."""
    parts = _CODE.split(line)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("|", "&#124;") for part in parts)


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(_escaped(text).split())


def code(value: Any) -> str:
    """A value as YAML writes it, in a code span; empty for None and an empty text."""
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return f"`{text}`" if text else ""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; nothing without rows."""
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
