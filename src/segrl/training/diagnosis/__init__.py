"""Why a GRPO run does not go well: pure functions over its logs, each finding with its evidence and what to change.

diagnose   the logs so far → what is wrong at their end
history    the logs of a run → when each finding held
facts      a row of rollouts.jsonl → the few numbers that the findings stand on

They read the last rows of steps.jsonl and the last groups of rollouts.jsonl, so a finding says how the
run is now. Too little to judge by gives no finding, but for a loss that is no number, which is one from
the first step on. docs/diagnosis.md has the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from segrl.training.diagnosis.groups import (
    GROUP_CHECKS,
    CompletionFacts,
    Finding,
    GroupFacts,
    Groups,
    facts,
    same_answer_in,
)
from segrl.training.diagnosis.steps import ENOUGH_ROWS, STEP_CHECKS, Steps, broken_by, not_finite

__all__ = [
    "CompletionFacts",
    "Finding",
    "GroupFacts",
    "Spell",
    "broken_by",
    "diagnose",
    "facts",
    "history",
    "not_finite",
    "same_answer_in",
]


def diagnose(steps: Steps, groups: Groups) -> list[Finding]:
    """What is wrong with a run as its logs end; empty for SFT, for a short log, and where nothing is."""
    logged = [row for row in steps if "reward" in row]
    found = [check(logged) for check in STEP_CHECKS] if len(logged) >= ENOUGH_ROWS else [not_finite(logged)]
    found += [check(groups) for check in GROUP_CHECKS]
    return [finding for finding in found if finding is not None]


@dataclass(frozen=True)
class Spell:
    """A finding and the logged steps between which it held. last is None while it still does."""

    finding: Finding
    first: int
    last: int | None


def history(steps: Steps, groups: Groups, looks: int = 20) -> list[Spell]:
    """Findings over a whole run, as `looks` evenly spaced looks show them; those that hold at the end first.

    The evidence is that of the last look at which a finding held.
    """
    ends = sorted({round(len(steps) * (i + 1) / looks) for i in range(looks)} - {0})
    seen: dict[str, tuple[Finding, int, int]] = {}
    for end in ends:
        step = steps[end - 1]["step"]
        for finding in diagnose(steps[:end], [group for group in groups if group.step <= step]):
            first = seen[finding.name][1] if finding.name in seen else step
            seen[finding.name] = (finding, first, step)
    final = steps[-1]["step"] if steps else None
    spells = [Spell(one, first, None if last == final else last) for one, first, last in seen.values()]
    return sorted(spells, key=lambda spell: spell.last is not None)
