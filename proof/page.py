"""Writes docs/proof.md from the records of a proof: every number in it is computed here."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl.devices import core_count, installed_version
from segrl.evaluation import EvalRecord, bootstrap_ci, paired_bootstrap
from segrl.files import write_atomically
from segrl.tiny.shapes import UNDERSTOOD

if TYPE_CHECKING:
    from run import Proof


def write_page(proof: Proof, facts: dict[str, Any], path: Path) -> None:
    """The whole page."""
    parts = [_head(proof, facts), _overall(proof), _verdicts(proof), _by_kind(proof), _choice(proof)]
    parts += [_swapped(proof), _kept(proof)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n\n".join(parts) + "\n")


def giou(records: Iterable[EvalRecord]) -> np.ndarray:
    """`(n,)` float64: the IoU of every record."""
    return np.array([record.iou for record in records])


def of_kinds(records: Sequence[EvalRecord], new: bool | None) -> list[EvalRecord]:
    """All records (None), those of kinds that the cold start teaches (False), or the others (True)."""
    return [r for r in records if new is None or (r.kind not in UNDERSTOOD) == new]


def with_interval(values: np.ndarray) -> str:
    """Mean and 95% interval; "none" without values."""
    interval = bootstrap_ci(values)
    if interval is None:
        return "none"
    low, high = interval
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def gain(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Mean of `after − before` with its paired 95% interval."""
    low, high = paired_bootstrap(before, after) or (float("nan"),) * 2
    return float(after.mean() - before.mean()), low, high


def gain_text(before: np.ndarray, after: np.ndarray) -> str:
    value, low, high = gain(before, after)
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """The machine that measured, and the versions, as a sentence."""
    from segrl.training.trainer import VERSIONED  # the same list that every run writes down

    versions = ", ".join(f"{name} {installed_version(name)}" for name in VERSIONED[:4])
    return f"Machine: {platform.machine()}, {core_count()} CPU cores, no GPU;\n{versions}."


def _head(proof: Proof, facts: dict[str, Any]) -> str:
    minutes = {name: fact["seconds"] / 60 for name, fact in facts.items()}
    spent = ", ".join(f"{name} {value:.1f} min ({facts[name]['steps']} steps)" for name, value in minutes.items())
    return f"""# Does the reward teach the tiny policy to point?

This page is written by `make proof` (`proof/run.py`, recipes `proof/rl.yaml` and
`proof/more_sft.yaml`); no number is typed in. {machine()}
Every arm starts from the shipped cold start and is measured on the same
{len(proof.records("cold"))} held-out scenes (greedy answers, GrabCut as the segmenter, failures score 0).
Intervals are 95% bootstrap intervals over scenes; differences are paired scene by scene.

{_frozen(proof)}Learning rate, mix of queries and what is frozen were chosen by earlier trials with these
seeds and scenes.

Training time: {spent}."""


def _frozen(proof: Proof) -> str:
    if not proof.rl.recipe.policy.freeze_vision_tower:
        return ""
    return "Both RL arms train the language model alone: the vision tower is frozen; more SFT trains all.\n"


def _arms(seed: int) -> list[tuple[str, str]]:
    return [
        ("cold start", "cold"),
        ("+ more SFT, same minutes", f"sft-{seed}"),
        ("+ RL, rewards shuffled in each group", f"shuffled-{seed}"),
        ("+ RL", f"rl-{seed}"),
        ("ceiling: ideal prompts", "ceiling"),
    ]


def _overall(proof: Proof) -> str:
    rows = []
    for seed in proof.plan.seeds:
        for title, name in _arms(seed):
            records = proof.records(name)
            old, new = (giou(of_kinds(records, flag)) for flag in (False, True))
            rows.append([str(seed), title, with_interval(giou(records)), with_interval(old), with_interval(new)])
    head = ["seed", "arm", "gIoU", "kinds the cold start teaches", "new kinds"]
    return "## gIoU\n\n" + table(head, rows)


def _verdicts(proof: Proof) -> str:
    cold, ceiling = giou(proof.records("cold")), giou(proof.records("ceiling"))
    flat = {name: _kinds_alike(proof.records(name)) for name in ("cold", "ceiling")}
    rows = []
    for seed in proof.plan.seeds:
        rl, sft, shuffled = (giou(proof.records(f"{arm}-{seed}")) for arm in ("rl", "sft", "shuffled"))
        share = (rl.mean() - cold.mean()) / (ceiling.mean() - cold.mean())
        alike = (_kinds_alike(proof.records(f"rl-{seed}")) - flat["cold"]) / (flat["ceiling"] - flat["cold"])
        rows.append(
            [str(seed), gain_text(cold, rl), gain_text(sft, rl), gain_text(shuffled, rl),
             f"{share:.1%}", f"{alike:.1%}", gain_text(cold, sft)]
        )  # fmt: skip
    head = ["seed", "RL − cold start", "RL − more SFT", "RL − shuffled", "share of the way to the ceiling",
            "the same, each kind counted once", "more SFT − cold start"]  # fmt: skip
    return "## RL against its controls\n\n" + table(head, rows)


def _kinds_alike(records: Sequence[EvalRecord]) -> float:
    """gIoU where each kind of query counts the same, however often it is asked."""
    return float(np.mean([_one(records, kind).mean() for kind in {record.kind for record in records}]))


def _by_kind(proof: Proof) -> str:
    cold = proof.records("cold")
    kinds = list(dict.fromkeys(record.kind for record in cold))
    rows = []
    for kind in kinds:
        row = [f"{kind}{'' if kind in UNDERSTOOD else ' (new)'}", with_interval(_one(cold, kind))]
        row += [gain_text(_one(cold, kind), _one(proof.records(f"rl-{seed}"), kind)) for seed in proof.plan.seeds]
        rows.append([*row, f"{_one(proof.records('ceiling'), kind).mean():.3f}"])
    head = ["kind", "cold start", *(f"RL gain, seed {seed}" for seed in proof.plan.seeds), "ceiling"]
    return "## By kind of query\n\n" + table(head, rows)


def _one(records: Sequence[EvalRecord], kind: str | None) -> np.ndarray:
    return giou(record for record in records if record.kind == kind)


def named(reasoning: str | None) -> list[tuple[int, int]] | None:
    """The places that a reasoning text ends by giving as meant; [] for "none match"; None if it gives nothing."""
    if reasoning is None:
        return None
    if reasoning.rstrip().endswith("none match"):
        return []
    tail = reasoning.rpartition("it is ")[2]
    places = re.fullmatch(r"[0-9]+,[0-9]+(?: and [0-9]+,[0-9]+)*", tail.strip())
    return [(int(x), int(y)) for x, y in re.findall(r"([0-9]+),([0-9]+)", tail)] if places else None


NEAR = 8
"""Pixels along each axis within which a named place is an object's; the smallest object has radius 11."""


def choice_right(records: Sequence[EvalRecord], gold: Sequence[EvalRecord]) -> np.ndarray:
    """`(n,)` 0/1: the reasoning gives as many places as the ideal one, each within `NEAR` of one of its own."""
    return np.array([float(_same(named(r.reasoning), named(g.reasoning))) for r, g in zip(records, gold, strict=True)])


def _same(said: list[tuple[int, int]] | None, ideal: list[tuple[int, int]] | None) -> bool:
    if said is None or ideal is None or len(said) != len(ideal):
        return False
    near = [[max(abs(x - u), abs(y - v)) <= NEAR for x, y in said] for u, v in ideal]
    return all(map(any, near)) and all(map(any, zip(*near, strict=True)))


def _choice(proof: Proof) -> str:
    """Pointing and understanding apart: choosing the object, and pointing at it once it is chosen."""
    gold = proof.records("ceiling")
    rows = []
    for title, name in [("cold start", "cold"), *((f"RL, seed {s}", f"rl-{s}") for s in proof.plan.seeds)]:
        records = proof.records(name)
        right = choice_right(records, gold)
        new = np.array([r.kind not in UNDERSTOOD for r in records])
        pointed = giou(records)[(right == 1) & np.array([r.kind != "none" for r in records])]
        rows.append([title, with_interval(right[~new]), with_interval(right[new]), with_interval(pointed)])
    head = [
        "arm",
        "right place given: taught kinds",
        "right place given: new kinds",
        "gIoU where the right place is given",
    ]
    return (
        "## Understanding and pointing apart\n\n"
        "The reasoning ends with the places of what is meant. The first two columns say how often it gives exactly "
        f"the right ones, within {NEAR} pixels (understanding); the last how good the mask is where it does "
        "(pointing).\n\n" + table(head, rows)
    )


def _swapped(proof: Proof) -> str:
    """Does the query matter? "None" is left out: what is absent from one scene is mostly absent from the next."""

    def row(title: str, name: str) -> list[str]:
        return [title, with_interval(giou(r for r in proof.records(name) if r.kind != "none"))]

    rows = []
    for seed in proof.plan.seeds:
        rows += [row(f"RL, seed {seed}", f"rl-{seed}"), row("asked another scene's query", f"swapped-{seed}")]
    rows.append(row("chance: ideal prompts for objects drawn at random, as many as are meant", "chance"))
    return (
        "## Queries swapped between scenes\n\nAll kinds but `none`, whose answer is mostly right in the next scene too."
        "\n\n" + table(["arm", "gIoU"], rows)
    )


def _kept(proof: Proof) -> str:
    cold = np.array(proof.counts("cold"), dtype=float)
    rows = [["cold start", with_interval(cold), ""]]
    for seed in proof.plan.seeds:
        for title, arm in (("RL", "rl"), ("more SFT", "sft"), ("RL, shuffled rewards", "shuffled")):
            counts = np.array(proof.counts(f"{arm}-{seed}"), dtype=float)
            rows.append([f"{title}, seed {seed}", with_interval(counts), gain_text(cold, counts)])
    return "## The second skill: counting objects, never asked for in RL\n\n" + table(
        ["arm", "right counts", "against the cold start"], rows
    )
