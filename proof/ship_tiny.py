"""Puts a finished cold start into the package, in bfloat16, with a card of what it can do.

    segrl train recipes/tiny_cold_start.yaml --out runs/cold_start
    python proof/ship_tiny.py runs/cold_start

The card's numbers are measured here, on held-out scenes, with the weights as they ship.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from segrl.tiny import policy_dir
from segrl.tiny.shapes import KINDS, UNDERSTOOD
from segrl.training.recipe import load_stages

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny_cold_start.yaml"
HELD_OUT: dict[str, Any] = {"n": 420, "seed": 9002, "kinds": [kind for kind in KINDS if kind != "count"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--remark", default="", help="What a reader of the card should know besides.")
    arguments = parser.parse_args()
    run = arguments.run
    ship(run / load_stages(RECIPE)[-1].name / "model", policy_dir())
    (policy_dir() / "README.md").write_text(card(run, arguments.remark), encoding="utf-8")
    print(f"wrote {policy_dir()}")


def ship(trained: Path, directory: Path) -> None:
    """The policy of `trained` in `directory`, weights in bfloat16."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from segrl.policies import read_settings, write_settings

    model = AutoModelForImageTextToText.from_pretrained(trained, dtype=torch.bfloat16)
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    AutoProcessor.from_pretrained(trained).save_pretrained(directory)
    write_settings(directory, read_settings(trained))


def card(run: Path, remark: str) -> str:
    """The model card, with measured numbers."""
    stages = [run / stage.name for stage in load_stages(RECIPE)]
    start = json.loads((stages[-1] / "run.json").read_text(encoding="utf-8"))["starts"][-1]
    done = "; ".join(map(_spent, stages))
    recipe = RECIPE.read_text(encoding="utf-8")
    size = (policy_dir() / "model.safetensors").stat().st_size / 1e6
    rows = "\n".join(f"| {kind} | {taught} | {giou} |" for kind, taught, giou in _measured())
    remark = f"{remark}\n\n" if remark else ""
    versions = ", ".join(f"{name} {start['versions'][name]}" for name in ("torch", "transformers", "trl"))
    return f"""# The tiny policy, cold-started

A vision-language policy of Qwen3-VL's architecture, made from nothing on synthetic scenes; {size:.1f} MB in bfloat16.
It is the default with which segrl shows and tests itself; it knows coloured shapes and nothing else.

Made by `segrl train recipes/tiny_cold_start.yaml --out runs/cold_start` and `python proof/ship_tiny.py
runs/cold_start` ({done}), {start["device"]},
{versions}. Its answers are Seg-R1's (`seg-r1`), its coordinates pixels of a 112 × 112 squash.

It was taught, by supervised learning, to list what it sees and to point with an annotator's loose boxes, with points
anywhere on the object and one negative point anywhere off it. For the kinds of query marked "no" its gold answers named
objects at random.

Measured by the same command on {HELD_OUT["n"]} held-out scenes (seed {HELD_OUT["seed"]}), greedy, GrabCut:

| kind of query | taught | gIoU |
| --- | --- | --- |
{rows}

{remark}The recipe:

```yaml
{recipe}```
"""


def _spent(stage: Path) -> str:
    """The steps and minutes of a stage's training."""
    rows = [json.loads(line) for line in (stage / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    return f"{stage.name}: {rows[-1]['step']} steps, {sum(row['seconds'] for row in rows) / 60:.0f} min"


def _measured() -> list[tuple[str, str, str]]:
    from segrl import datasets, policies, segmenters
    from segrl.evaluation import evaluate
    from segrl.evaluation.result import result
    from segrl.evaluation.table import tabulate
    from segrl.loading import make_text_to_masks

    policy = policies.load("tiny")
    text_to_masks = make_text_to_masks(policy, segmenters.load("grabcut"))
    records = evaluate(policy, text_to_masks, datasets.load("tiny", **HELD_OUT), batch_size=32, max_new_tokens=160)
    found = result(tabulate(records))
    read = found["metrics"]["parse_rate"]["value"]
    rows = [("all", "", f"{_giou(found)}; {read:.1%} of answers read")]
    for kind, part in found["slices"]["kind"].items():
        rows.append((kind, "yes" if kind in UNDERSTOOD else "no", _giou(part)))
    return rows


def _giou(part: dict[str, Any]) -> str:
    giou = part["metrics"]["giou"]
    low, high = giou["ci95"]
    return f"{giou['value']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
