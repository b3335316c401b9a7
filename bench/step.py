"""GRPO steps with a policy of real size and random weights: seconds by phase, samples a second, peak memory beside
`segrl plan`. Prints them and writes step.json beside this file.

python bench/step.py                     (one GPU: recipes/one_gpu_80gb.yaml at Qwen2.5-VL-3B's and Hiera-L's size)
python bench/step.py --short --out DIR   (tiny sizes on any machine, for the tests: the numbers mean nothing)

Random weights never write an answer, so `Anything` reads one into each text: every completion is as long as the recipe
allows, and every one is segmented.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import peak_megabytes
from workload import random_prompt, save_random  # puts tests/support on the path

from segrl.answers.json_formats import SamR1
from segrl.files import read_rows, write_atomically
from segrl.memory_estimate import needs, setting_of
from segrl.memory_estimate.dimensions import POLICIES, PolicyModel, Vision
from segrl.memory_estimate.estimate import GB, peak
from segrl.tiny.model import build_tokenizer
from segrl.training import Recipe, load_recipe, train
from segrl.types import UNKNOWN_FRAME, Answer, Frame, Reading, Status

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "one_gpu_80gb.yaml"
PHASES = ("rollout", "reward", "update")
REAL = POLICIES["Qwen/Qwen2.5-VL-3B-Instruct"]
SMALL = PolicyModel("qwen2_5_vl", 64, 2, 2, 1, 32, 128, 1024, True, Vision(256, 2, 64, patch=14))
SMALL_OVERRIDES = (
    "policy.input_wh=[56,56]",
    "trainer.per_device_train_batch_size=2",
    "trainer.gradient_accumulation_steps=4",
    "trainer.max_completion_length=8",
    "peft.r=4",
)


class Anything(SamR1):
    """Reads a box and three points into any text; which ones follows from the text."""

    name = "anything"

    def prompt(self, query: str) -> str:
        """The query as it is."""
        return query

    def parse(
        self, text: str, *, truncated: bool = False, frame: Frame = UNKNOWN_FRAME, reading: Reading = "strict"
    ) -> Answer:
        """Always OK."""
        assert frame.size_wh is not None
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        return Answer(Status.OK, (replace(random_prompt(rng, frame.size_wh), frame=frame),))


def main() -> None:
    """Train a few steps and say what they took."""
    options = read_options()
    with tempfile.TemporaryDirectory() as scratch:
        recipe = prepare(Path(scratch), options.steps, options.short)
        peak_gb = peak_gigabytes(lambda: train(recipe, Path(scratch) / "run", progress=False))
        rows, planned = read_rows(Path(scratch) / "run" / "steps.jsonl"), planned_gb(recipe, options.short)
    found = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "policy_parameters": (SMALL if options.short else REAL).parameters,
        **summary(rows, recipe),
        "peak_gb": peak_gb,
        "planned_gb": planned,
    }
    found["peak_over_planned"] = found["peak_gb"] / found["planned_gb"]
    for name, value in found.items():
        print(f"{name:>20} {value:.4g}" if isinstance(value, float) else f"{name:>20} {value}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "step.json", json.dumps(found, indent=1) + "\n")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="updates; the first rollout's are not counted")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--short", action="store_true")
    return parser.parse_args()


def prepare(place: Path, steps: int, short: bool) -> Recipe:
    """The recipe with random checkpoints in `place` instead of the real ones, and scenes that need no download."""
    save_policy(place / "policy", SMALL if short else REAL)
    segmenter = save_random("sam2" if short else "hiera_large", place / "segmenter")
    overrides = [
        f"policy.path={place / 'policy'}",
        f"segmenter={{name: {segmenter}}}",
        "dataset={name: tiny, n: 64, seed: 0}",
        "answer_format={python: step.Anything}",
        "reward_check=false",
        f"trainer.max_steps={steps}",
        f"trainer.save_steps={steps}",
    ]
    return load_recipe(RECIPE, [*overrides, *(SMALL_OVERRIDES if short else ())])


def save_policy(directory: Path, size: PolicyModel) -> None:
    """A Qwen2.5-VL of that size with random weights in bfloat16, and a small tokenizer."""
    import transformers as t

    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 32_768
    ids = {f"{name}_token_id": f"<|{name}|>" for name in ("vision_start", "vision_end")}
    ids |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    from hub_configs import transformers_config

    config = transformers_config(size, {key: tokenizer.convert_tokens_to_ids(token) for key, token in ids.items()})
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    model = t.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    pictures = t.Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 2048})
    videos = t.Qwen2VLVideoProcessor()
    template = tokenizer.chat_template
    t.Qwen2_5_VLProcessor(pictures, tokenizer, videos, chat_template=template).save_pretrained(directory)


def summary(rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Samples a second, mean seconds of a step by phase, the reward's share; the first rollout's updates left out."""
    updates = recipe.trainer["num_iterations"]
    warm = rows[updates:]
    seconds = {phase: sum(row[f"seconds/{phase}"] for row in warm) / len(warm) for phase in PHASES}
    step = sum(seconds.values())
    completions = recipe.trainer["per_device_train_batch_size"] * recipe.trainer["gradient_accumulation_steps"]
    return {
        "samples_per_second": completions / updates / step,
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        "reward_share": seconds["reward"] / step,
    }


def planned_gb(recipe: Recipe, short: bool) -> float:
    """What `segrl plan` reckons for the same recipe."""
    named = "facebook/sam2.1-hiera-small" if short else "facebook/sam2.1-hiera-large"
    segmenter = recipe.segmenter.model_copy(update={"name": named}) if recipe.segmenter else None
    return peak(needs(setting_of(recipe.model_copy(update={"segmenter": segmenter}), 1, 80)))[1] / GB


def peak_gigabytes(work: Any) -> float:
    """Peak memory of the whole GPU while `work` runs, CUDA's own included; without one, of this process."""
    megabytes = peak_megabytes(work)
    if not torch.cuda.is_available():
        return megabytes * 2**20 / GB
    free, total = torch.cuda.mem_get_info()
    beside_torch = total - free - torch.cuda.memory_reserved()
    return (torch.cuda.max_memory_reserved() + beside_torch) / GB


if __name__ == "__main__":
    main()
