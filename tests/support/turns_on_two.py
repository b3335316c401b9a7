"""Run by test_turns_processes.py on two processes: two steps over turns, of which only the first process has several.

Every answer of the first process ends where its limit is, and is looked at; those of the second are cut off there.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

SHORT = 12
"""Tokens of an answer."""


def characters(rollout: object) -> float:
    """A reward that differs between random texts, but is the same for all that is asked about something red."""
    return 0.0 if "red" in rollout.query else float(sum(map(ord, rollout.text)) % 11)  # type: ignore[attr-defined]


def main(recipe: Path, out: Path) -> None:
    """Trains `recipe` in `out`."""
    from segrl.policies.loading import load_processor
    from segrl.training import load_recipe, train

    policy = load_recipe(recipe).policy.path
    end = load_processor(policy).tokenizer.convert_tokens_to_ids("<|im_end|>")
    ending = f"forced_eos_token_id: {end}" if os.environ["RANK"] == "0" else f"min_new_tokens: {SHORT}"
    train(load_recipe(recipe, [f"trainer.generation_kwargs={{{ending}}}"]), out, progress=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
