"""What a diagnosis yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run. name: for machines; evidence: the numbers; advice: what to change."""

    name: str
    title: str
    evidence: str
    advice: str
