"""Run by test_two_processes.py, alone and twice at once: three steps on replayed completions, with and without KL,
with completions selected and groups without spread skipped or replaced.

Twice at once it also goes on with a run that was cut short.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

TEXTS = [
    "<bbox>[10,10,60,60]</bbox>",
    "<think>Red.</think> <bbox>[10,10,60,60]</bbox>, <points>[[30,30]]</points>, <labels>[1]</labels>",
    "<bbox>[0,0,112,112]</bbox>, <points>[[30,30],[5,5]]</points>, <labels>[1,0]</labels>",
    "nothing",
]
"""A group's completions: rewards differ, and lengths too, so that the token-level mean is not that of the groups."""


FLAT = ["nothing"] * len(TEXTS)
"""A group without spread."""
REPLACED: set[tuple[int, int]] = set()
"""Trainers and steps whose first rollout was flat."""


def texts_of(query: str, trainer: Any, is_first: bool) -> list[str]:
    """Of a recipe that skips flat groups about half of the queries have one; of one that replaces them the first
    rollout of each step is flat."""
    mode = trainer._chosen.flat
    is_flat = (mode == "skip" and zlib.crc32(query.encode()) % 2) or (mode == "replace" and is_first)
    return FLAT if is_flat else TEXTS


def replay(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """The texts in turn for each query, whichever process it is on."""
    tokenizer = trainer.processing_class.tokenizer
    rollout = id(trainer), trainer.state.global_step
    is_first = rollout not in REPLACED
    REPLACED.add(rollout)
    seen: Counter[str] = Counter()
    completions = []
    for prompt in prompts:
        query = json.dumps(prompt, default=lambda image: "")
        text = texts_of(query, trainer, is_first)[seen[query] % len(TEXTS)]
        completions.append([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        seen[query] += 1
    return {"prompt_ids": trainer._tokenize_prompts(prompts)[0], "completion_ids": completions, "logprobs": None}


def main(folder: Path, processes: int) -> None:
    """Trains in `folder`/NAME-`processes` for each recipe of `folder`."""
    from segrl.training import load_recipe, train

    for path in sorted(folder.glob("*.yaml")):
        per_device = f"trainer.per_device_train_batch_size={8 // processes}"
        out = folder / f"{path.stem}-{processes}"
        train(load_recipe(path, [per_device]), out, rollout_func=replay, progress=False)
    if processes > 1:
        again(folder / f"{path.stem}-{processes}", folder / "again")


def again(whole: Path, broken: Path) -> None:
    """Goes on with a copy of a run that was killed after its second step."""
    from segrl.devices import is_main, wait_for_all
    from segrl.training import load_recipe, train

    if is_main():
        shutil.copytree(whole, broken, ignore=shutil.ignore_patterns("checkpoint-3", "finished.json", "model"))
    wait_for_all()
    train(load_recipe(broken / "recipe.yaml"), broken, rollout_func=replay, progress=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]))
