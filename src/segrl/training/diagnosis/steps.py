"""Findings in steps.jsonl: functions from the logged steps of a GRPO run so far to a finding or None."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segrl.training.diagnosis.groups import Finding
from segrl.types import Status

Row = Mapping[str, Any]
Steps = Sequence[Row]

ROWS, ENOUGH_ROWS = 10, 5
"""Logged steps that are judged, and how many of them a finding needs."""

EQUAL = 0.5
"""Share of groups with equal rewards."""
NEVER = 0.02
"""Share of answers below which something never happens."""
CUT_OFF = 0.1
"""Share of answers at the token limit."""
CLIPPED = 0.2
"""Share of tokens beyond the clip."""
GROWN = 2.0
"""Factor by which a length runs away; its inverse is a collapse."""
ENTROPY_NATS = (0.02, 3.0)
KL_NATS = 1.0
LOGP_NATS = 0.05
"""Mean difference of log-probabilities that bfloat16 and other kernels do not explain."""


def equal_rewards(steps: Steps) -> Finding | None:
    """All rewards of most groups are equal: such a group has no advantages."""
    share = _last(steps, "frac_reward_zero_std")
    if share is None or share <= EQUAL:
        return None
    return Finding(
        "equal_rewards",
        "Most groups have equal rewards",
        f"In {share:.0%} of the groups of the last steps every answer earns the same; they teach nothing.",
        "Use a graded term (iou, or more iou_tiers), raise num_generations or temperature, and leave out queries that "
        "are always right or always wrong.",
    )


def format_never_right(steps: Steps) -> Finding | None:
    """No answer can be read, or a format term never pays."""
    shares = {status: _last(steps, f"status/{status.value}") or 0.0 for status in Status}
    logged = any(f"status/{status.value}" in row for row in steps[-ROWS:] for status in Status)
    readable = shares[Status.OK] + shares[Status.NO_TARGET]
    unpaid = [term for term in _terms(steps) if term.startswith("format") and _never(_last(steps, _mean_of(term)))]
    if not (logged and readable <= NEVER) and not unpaid:
        return None
    worst = max((status for status in Status if status.is_failure), key=lambda status: shares[status])
    what = f"the terms {', '.join(unpaid)} pay nothing; " if unpaid else ""
    return Finding(
        "format_never_right",
        "The format is never right",
        f"{readable:.1%} of the answers can be read; {what}the most frequent fault is {worst.value} "
        f"({shares[worst]:.0%}).",
        "Reinforcement finds no format by chance: start from a cold start (method: sft), or ask with "
        "policy.system: answer_format, or choose the answer_format that the policy was trained to write.",
    )


def cut_off(steps: Steps) -> Finding | None:
    """Answers end at the token limit."""
    share = _last(steps, "completions/clipped_ratio")
    if share is None or share <= CUT_OFF:
        return None
    longest = _last(steps, "completions/max_length")
    limit = "" if longest is None else f", at {longest:.0f} tokens"
    return Finding(
        "cut_off",
        "Answers are cut off",
        f"{share:.0%} of the answers of the last steps hit the token limit{limit}.",
        "Raise trainer.max_completion_length, or add the term length_budget; a policy that only repeats itself needs "
        "non_repeat.",
    )


def length_runs(steps: Steps) -> Finding | None:
    """The mean length has doubled or halved since the beginning."""
    first, last = _first(steps, "completions/mean_length"), _last(steps, "completions/mean_length")
    if first is None or last is None or 1 / GROWN < last / max(first, 1.0) < GROWN:
        return None
    grew = last > first
    return Finding(
        "length_runs_away" if grew else "length_collapses",
        "Answers run away in length" if grew else "Answers collapse in length",
        f"The mean length went from {first:.0f} tokens in the first steps to {last:.0f} in the last.",
        "Add the term length_budget or lower max_completion_length; loss_type: dr_grpo or dapo takes the length out of "
        "the loss."
        if grew
        else "Read the reasoning in the rollouts: a term may reward its absence; "
        "raise beta, or lower the learning rate.",
    )


def entropy_out_of_range(steps: Steps) -> Finding | None:
    """The policy no longer explores, or has become noise."""
    value, (low, high) = _last(steps, "entropy"), ENTROPY_NATS
    if value is None or low <= value <= high:
        return None
    begun = _first(steps, "entropy")
    since = "" if begun is None else f" (first steps: {begun:.3g})"
    if value < low:
        advice = (
            "Raise temperature or epsilon_high, lower the learning rate, or add beta; more steps teach nothing now."
        )
        return Finding("entropy_low", "The policy no longer explores", f"Entropy {value:.3g} nats{since}.", advice)
    advice = "Lower the learning rate or temperature, raise beta; go on from a checkpoint before the rise."
    return Finding("entropy_high", "The policy becomes noise", f"Entropy {value:.3g} nats{since}.", advice)


def kl_out_of_range(steps: Steps) -> Finding | None:
    """The policy has gone far from where it began."""
    value = _last(steps, "kl")
    if value is None or value <= KL_NATS:
        return None
    return Finding(
        "kl_high",
        "The policy leaves the one it began from",
        f"KL {value:.3g} nats per token in the last steps; below 0.5 is usual.",
        "Lower the learning rate or raise beta; see in the rollouts whether the reward's rise is a true one.",
    )


def not_finite(steps: Steps) -> Finding | None:
    """The loss or a gradient is no number (the log writes null)."""
    names = ("loss", "grad_norm", "kl", "entropy")
    broken = [name for name in names if any(name in row and row[name] is None for row in steps[-ROWS:])]
    if not broken:
        return None
    return broken_by(f"{', '.join(broken)} of the last steps: not finite.")


def broken_by(evidence: str) -> Finding:
    """The finding `not_finite` with other evidence than the log's."""
    return Finding(
        "not_finite",
        "The training is numerically broken",
        evidence,
        "Go on from a checkpoint before it with a lower learning rate or max_grad_norm; prefer bf16 to fp16.",
    )


def clipped_tokens(steps: Steps) -> Finding | None:
    """Too many tokens are clipped out of the update."""
    share = _last(steps, "clip_ratio/region_mean")
    share = _last(steps, "cispo_clip_ratio") if share is None else share
    if share is None or share <= CLIPPED:
        return None
    return Finding(
        "clipped_tokens",
        "Many tokens are clipped",
        f"{share:.0%} of the tokens of the last steps lie beyond the clip and teach nothing.",
        "Lower the learning rate, num_iterations or steps_per_generation, or widen epsilon_high.",
    )


def rollouts_differ(steps: Steps) -> Finding | None:
    """vLLM gives its tokens other probabilities than the trainer does."""
    mean, most = (_last(steps, f"sampling/sampling_logp_difference/{name}") for name in ("mean", "max"))
    if mean is None or mean <= LOGP_NATS:
        return None
    furthest = "" if most is None else f", {most:.3g} at the furthest token"
    return Finding(
        "rollouts_differ",
        "The rollouts come from another policy than the one that is trained",
        f"vLLM's log-probabilities of its tokens differ from the trainer's by {mean:.3g} nats on average{furthest}; "
        f"rounding explains less than {LOGP_NATS:g}.",
        "Look for pictures of several sizes (set policy.input_wh), weights of another dtype or quantization, or a "
        "server that did not take the new weights; rollouts without use_vllm are exact.",
    )


def never_applies(steps: Steps) -> Finding | None:
    """A term has applied to no answer yet."""
    silent = [term for term in _terms(steps) if all(row.get(_mean_of(term)) is None for row in steps)]
    if not silent:
        return None
    return Finding(
        "never_applies",
        "A reward term never applies",
        f"{', '.join(silent)}: None for every answer of {len(steps)} logged steps.",
        "A term of your own may lack its return; one that judges only some samples needs such samples in the data.",
    )


STEP_CHECKS: tuple[Callable[[Steps], Finding | None], ...] = (
    not_finite,
    format_never_right,
    cut_off,
    equal_rewards,
    length_runs,
    entropy_out_of_range,
    kl_out_of_range,
    clipped_tokens,
    rollouts_differ,
    never_applies,
)


def _last(steps: Steps, key: str) -> float | None:
    """Mean of a metric over the last rows; None unless enough of them have it."""
    values = [float(row[key]) for row in steps[-ROWS:] if row.get(key) is not None]
    return sum(values) / len(values) if len(values) >= min(ENOUGH_ROWS, len(steps)) else None


def _first(steps: Steps, key: str) -> float | None:
    """The same over the first rows, where the last ones are others."""
    return _last(steps[:ROWS], key) if len(steps) >= 2 * ROWS else None


def _terms(steps: Steps) -> list[str]:
    keys = dict.fromkeys(key for row in steps[-ROWS:] for key in row)
    return [key.split("/")[1] for key in keys if key.startswith("rewards/") and key.endswith("/mean")]


def _mean_of(term: str) -> str:
    return f"rewards/{term}/mean"


def _never(value: float | None) -> bool:
    return value is not None and value <= NEVER
