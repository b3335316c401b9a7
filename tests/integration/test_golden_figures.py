"""Figures that must not change when code moves: of evaluations, of a run's summary and of the proof's page.

`python tests/integration/test_golden_figures.py` writes the expectations again; do that only where a rule of
docs/protocol.md changes, and say so.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / "support"), str(ROOT / "proof")]

from eval_samples import write_examples  # noqa: E402
from golden_run import KINDS, evaluate_arm  # noqa: E402

from segrl.evaluation import Share, compare_runs, run  # noqa: E402
from segrl.reporting import write_report  # noqa: E402

GOLDEN = Path(__file__).with_name("golden_figures.json")
HEADLINE = ("giou", "ciou", "s_measure", "parse_rate")


def evaluated(root: Path) -> dict[str, Any]:
    """metrics.json of scripted answers of every kind, drawn as boxes."""
    assert run(write_examples(root, 60), root / "box", share=Share())
    found = json.loads((root / "box" / "metrics.json").read_text())
    slices = {name: {part: of_part(one) for part, one in parts.items()} for name, parts in found["slices"].items()}
    return {**found, "slices": slices}


def of_part(found: dict[str, Any]) -> dict[str, Any]:
    return {"n": found["n"], "statuses": found["statuses"], **{name: found["metrics"][name] for name in HEADLINE}}


def trained(root: Path) -> dict[str, Any]:
    """A run measured before and after, with GrabCut: metrics.json of both, their comparison, the run's summary."""
    for arm in ("before", "after"):
        evaluate_arm(root, arm, root / "evaluation" / arm)
    before, after = (root / "evaluation" / arm for arm in ("before", "after"))
    return {
        **{out.name: json.loads((out / "metrics.json").read_text())["metrics"] for out in (before, after)},
        "compare": compared(compare_runs(before, after)),
        "summary": summary(root),
    }


def compared(found: dict[str, Any]) -> dict[str, Any]:
    kinds = {kind: {"n": part["n"], **part["metrics"]["giou"]} for kind, part in found["slices"]["kind"].items()}
    return {"metrics": found["metrics"], "kinds": kinds, "changed": found["changed"]}


def summary(root: Path) -> dict[str, Any]:
    """What summary.json of the run says, under names that do not follow its layout."""
    write_report(root)
    found = json.loads((root / "summary.json").read_text())
    sides = ("before", "after")
    return {
        **{side: of_part(found[side]) for side in sides},
        "kinds": {
            side: {kind: of_part(part) for kind, part in found[side]["slices"]["kind"].items()} for side in sides
        },
        "gains": gains(found["comparison"]),
        "gains_by_kind": {kind: gains(part) for kind, part in found["comparison"]["slices"]["kind"].items()},
        "pointing": found["pointing"],
    }


def gains(part: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: part["metrics"][name][key] for key in ("difference", "ci95")} for name in HEADLINE}


def proof_page(root: Path) -> list[str]:
    """The tables of the proof's page over replayed arms; ceiling and chance are made as the proof makes them."""
    from page import write_page
    from run import Plan, Proof

    plan = Plan((0,), ("evaluation.dataset.n=42", f"evaluation.dataset.kinds=[{','.join(KINDS)}]"), 8)
    proof = Proof(root / "proof", plan, say=lambda line: None)
    proof.measured("ceiling", lambda out: run(proof._gold(), out))
    proof.measured("chance", lambda out: run(proof._chance(), out))
    for name, arm in ARMS_OF_PROOF.items():
        evaluate_arm(root, arm, proof.evaluation(name).path)
    for place, name in enumerate(("cold", "rl-0", "sft-0", "shuffled-0")):
        counts = [i % (place + 2) == 0 for i in range(8)]
        (root / "proof" / f"{name}.counts.json").write_text(json.dumps(counts))
    facts = {name: {"seconds": 60.0, "steps": 2} for name in ("rl-0", "sft-0", "shuffled-0")}
    write_page(proof, facts, root / "proof.md")
    text = (root / "proof.md").read_text()
    return text[text.index("## gIoU") :].splitlines()


ARMS_OF_PROOF = {"cold": "before", "rl-0": "after", "sft-0": "sft", "shuffled-0": "shuffled", "swapped-0": "shuffled"}
PARTS = {"evaluated": evaluated, "trained": trained, "proof_page": proof_page}


@pytest.mark.parametrize("part", PARTS)
def test_figures_are_what_they_were(part: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())[part]
    found = json.loads(json.dumps(PARTS[part](tmp_path)))
    for place, value in leaves(golden):
        assert at(found, place) == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value), place


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """(path, value) of everything that is no container."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [(place, value)] if items is None else [one for key, inner in items for one in leaves(inner, (*place, key))]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


if __name__ == "__main__":
    made = {}
    for name, make in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            made[name] = make(Path(folder))
    GOLDEN.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
