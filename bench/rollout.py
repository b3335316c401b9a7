"""A rollout that transformers generates, each prompt read once per group, beside `generate` as TRL calls it.

python bench/rollout.py                       (part of `make bench`: two cores, no download, some minutes)
python bench/rollout.py --device cuda         (the same rows on a GPU)
python bench/rollout.py --short --out DIR     (tiny sizes, for the tests: the numbers mean nothing)

Prints a table and writes rollout.json beside this file; all rows on a CPU write the table of docs/performance.md. The
model is that of bench/update.py; one group of completions of 150 sampled tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from step import save_policy
from tables import write_table
from timing import memory_growth_megabytes, side_by_side
from update import COMPLETION, GROUPS, HERE, MODEL, SHORT_MODEL, SIDES
from workload import photograph

from segrl.devices import core_count, device_name
from segrl.files import write_atomically
from segrl.policies import one_prefill
from segrl.policies.chat import rendered
from segrl.policies.model_speedups import keep_room, project_patches
from segrl.training.speed import share_images

QUESTION = "Identify and segment the leftmost person on the right of the large red object. " * 2
HEAD = "| picture | G | TRL, s | ours | TRL, MB | ours | first token: TRL, s | ours | time | memory | equal tokens |"


@dataclass(frozen=True)
class Row:
    """One rollout. first: seconds to the first token. equal: share of the tokens that both sampled alike."""

    side: int
    group: int
    seconds: dict[str, float]
    megabytes: dict[str, float]
    first: dict[str, float]
    equal: float


def main() -> None:
    """Run everything."""
    options = read_options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    rows = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        save_policy(Path(scratch), SHORT_MODEL if options.short else MODEL)
        models = {name: model_of(Path(scratch), options.device) for name in ("plain", "ours")}
        project_patches(models["ours"])
        share_images(models["ours"])
        keep_room(models["ours"])
        for side in options.sides:
            for group in options.groups:
                rows.append(one(models, Path(scratch), side, group, options))
                print(line(rows[-1]), flush=True)
    machine = {"device": device_name(), "threads": options.threads, "torch": torch.__version__}
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    write_atomically(options.out / "rollout.json", json.dumps(content, indent=1) + "\n")
    if (options.out, options.device, len(rows)) == (HERE, "cpu", len(SIDES) * len(GROUPS)):
        heading = f"`python bench/rollout.py` on {machine['device']}, {options.threads} threads:"
        write_table("bench/rollout.py", [heading, "", HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(line, rows)])


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--tokens", type=int, default=COMPLETION)
    parser.add_argument("--repeats", type=int, default=1, help="rounds after an unmeasured one")
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.groups, options.sides, options.tokens, options.repeats = (4,), (112,), 8, 1
    return options


def model_of(directory: Path, device: str) -> Any:
    """The policy in float32, as it is in use."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval().to(device)


def one(models: dict[str, Any], policy: Path, side: int, group: int, options: argparse.Namespace) -> Row:
    """One rollout of each, alternating."""
    inputs = inputs_of(policy, side, group, options.device)
    whole = {name: rollout(model, inputs, options.tokens, name == "ours") for name, model in models.items()}
    first = {name: rollout(model, inputs, 1, name == "ours") for name, model in models.items()}
    written = {name: work() for name, work in whole.items()}
    return Row(
        side,
        group,
        side_by_side(whole, options.repeats),
        {name: memory_growth_megabytes(work) for name, work in first.items()},
        side_by_side(first, options.repeats),
        float((written["ours"] == written["plain"])[:, inputs["input_ids"].shape[1] :].float().mean()),
    )


def inputs_of(policy: Path, side: int, group: int, device: str) -> dict[str, torch.Tensor]:
    """One prompt and picture, `group` times, as TRL's processor gives them."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(policy, padding_side="left")
    texts, images = [rendered(processor, QUESTION)] * group, [[photograph(side, side)]] * group
    return dict(processor(text=texts, images=images, return_tensors="pt").to(device))


def rollout(model: Any, inputs: dict[str, torch.Tensor], tokens: int, is_ours: bool) -> Callable[[], torch.Tensor]:
    """Samples `tokens` for each row, the same for everyone who asks."""
    from transformers import GenerationConfig

    ends = {
        "pad_token_id": model.config.text_config.pad_token_id,
        "eos_token_id": model.config.text_config.eos_token_id,
    }
    config = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, **ends)

    def sample() -> torch.Tensor:
        torch.manual_seed(0)
        with torch.no_grad():
            if is_ours:
                return one_prefill.generate(model, inputs, config)
            return model.generate(**inputs, generation_config=config)

    return sample


def line(row: Row) -> str:
    """As docs/performance.md has them."""
    cells = [f"{row.side}²", row.group]
    for values, form in ((row.seconds, ".2f"), (row.megabytes, ",.0f"), (row.first, ".2f")):
        cells += [f"{values['plain']:{form}}", f"{values['ours']:{form}}"]
    for values in (row.seconds, row.megabytes):
        cells.append(f"{values['ours'] / values['plain']:.2f}")
    return "| " + " | ".join(map(str, [*cells, f"{row.equal:.0%}"])) + " |"


if __name__ == "__main__":
    main()
