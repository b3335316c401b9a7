"""The overlay `ci`: what stands in a shipped recipe's place where there is no GPU and no download.

Everything that it does not name stays as the recipe has it: answer format, rewards, prompts, the
objective, the optimizer, adapters. docs/recipes.md lists what it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segrl.training import Recipe, parse_recipe

NOT_RUN = ("quantization", "trainer.use_vllm", "trainer.vllm_mode", "trainer.deepspeed", "trainer.fsdp")
"""Taken out of a recipe: what needs a GPU or a library for one."""

SIZES = {"max_steps": 2, "logging_steps": 1}
FOLDERS = {"folder": "people", "fcot": "FCoT", "labelme": "labelme", "star": "star"}
ANSWER_TOKENS = 8


def ci(recipe: Recipe, policies: Mapping[str, Path], data: Path) -> tuple[Recipe, list[str]]:
    """The recipe as CI runs it, and which of its keys are not run.

    policies: small ones for `tiny`, `tiny-fresh` and `hub` (any other name); a directory stays. data:
    where `save_data` has written.
    """
    values = recipe.as_dict()
    removed = [key for key in NOT_RUN if _taken_out(values, key)]
    path = values["policy"]["path"]
    if not Path(path).is_dir():
        values["policy"]["path"] = str(policies.get(path, policies["hub"]))
    # A trained segmenter sees nothing in the stand-ins' flat pictures.
    if values["segmenter"] is not None and _is_trained(values["segmenter"]["name"]):
        values["segmenter"] = {"name": "box"}
    _shrink_data(values["dataset"], data)
    if values["evaluation"] is not None:
        _shrink_data(values["evaluation"]["dataset"], data)
    values["trainer"] |= SIZES | _one_query(values["trainer"])
    if recipe.turns is not None:
        values["turns"]["answer_tokens"] = ANSWER_TOKENS  # a completion is as long as its pictures make it
    elif recipe.method == "grpo":
        values["trainer"]["max_completion_length"] = ANSWER_TOKENS
    return parse_recipe(values), removed


def _is_trained(segmenter: str) -> bool:
    return "/" in segmenter or segmenter == "tiny"


def _taken_out(values: dict[str, Any], key: str) -> bool:
    *parents, last = key.split(".")
    for parent in parents:
        values = values[parent]
    return values.pop(last, None) is not None


def _shrink_data(section: dict[str, Any], data: Path) -> None:
    """Few examples; a set that lies on disk lies under `data`."""
    name = section["name"]
    if name.startswith("tiny"):
        section["n"] = 64
        if "answers" in section.get("turns", {}):
            section["turns"]["answers"] = str(data / "answers")
        return
    section["root"] = str(data / FOLDERS.get(name, ""))
    if "sample" in section:
        section["sample"]["n"] = 4
    if "turns" in section and _is_trained(section["turns"]["segmenter"]):
        section["turns"]["segmenter"] = "box"
    if "split" in section and isinstance(section["split"], dict):
        section["split"]["train"] = 4


def _one_query(trainer: Mapping[str, Any]) -> dict[str, int]:
    """Batch sizes that make a rollout one group, with as many micro-batches as a group then needs."""
    if "num_generations" not in trainer:
        return {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    group = trainer["num_generations"]
    micro = min(group, trainer["per_device_train_batch_size"])
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": group // micro}
