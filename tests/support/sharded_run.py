"""Run by test_sharded.py, alone and twice at once: three steps on replayed completions.

After the second step's checkpoint a run in a directory with a file `hold` waits to be killed.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from two_processes import replay


def main(recipe: Path, out: Path) -> None:
    """Trains `recipe` in `out`, or goes on with it there; each prompt is read once per group."""
    from segrl.training import load_recipe, packing, train

    packing.GAIN = math.inf  # prompts here are short

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        step = trainer.state.global_step
        if not (out / "uneven").exists():
            generate_unevenly(trainer)
            (out / "uneven").touch()
        if step == 2 and (out / "hold").exists():
            (out / f"held-{trainer.accelerator.process_index}").write_text(str(os.getpid()))
            time.sleep(3600)
        return replay(prompts, trainer)

    train(load_recipe(recipe), out, rollout_func=rollout, progress=False)


def generate_unevenly(trainer: Any) -> None:
    """Each process generates longer than the one before it: whoever is through first must wait for the others."""
    from transformers import GenerationConfig
    from trl.models import unwrap_model_for_generation

    from segrl.policies import one_prefill

    tokens = 2 + 3 * trainer.accelerator.process_index
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model, torch.no_grad():
        ids = torch.tensor([[5, 6, 7]] * 2)
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        found = model.generate(input_ids=ids, **options)
        shared = one_prefill.generate(model, {"input_ids": ids}, GenerationConfig(**options))
    assert found.shape == (2, 3 + tokens)
    assert torch.equal(shared, found)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
