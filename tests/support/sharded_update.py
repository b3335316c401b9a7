"""Run by test_two_processes.py on two processes: the update's gradient under FSDP2's sharding, either way.

accelerate shards on GPUs only, so `fully_shard` is called here as accelerate calls it there. Prints the
relative difference of the two gradients and what the trainer said.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from two_processes import replay


def main(recipe: Path, run: Path) -> None:
    """Builds the recipe's trainer, shards its model, and compares."""
    from torch.distributed.fsdp import fully_shard

    from segrl.training import packing, parse_recipe
    from segrl.training.checkpoints import RunDir
    from segrl.training.parts import Parts
    from segrl.training.trainer import build

    packing.GAIN = math.inf
    lines: list[str] = []
    parts = Parts(parse_recipe(yaml.safe_load(recipe.read_text())))
    trainer = build(parts, RunDir(run), rollout_func=replay, say=lines.append).trainer
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    for layer in trainer.model.model.language_model.layers:
        fully_shard(layer)
    fully_shard(trainer.model)
    shared = gradient(trainer, inputs)
    trainer._say = None
    plain = gradient(trainer, inputs)
    difference = float((shared - plain).norm() / plain.norm())
    kind = type(trainer.model).__name__
    if os.environ["RANK"] == "0":
        print(json.dumps({"kind": kind, "difference": difference, "lines": lines}))


def gradient(trainer: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Of the loss, all parameters whole and in one vector."""
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, inputs).backward()
    gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
    return torch.cat([gradient.full_tensor().flatten() for gradient in gradients])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
