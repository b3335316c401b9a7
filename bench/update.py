"""GRPO's update (forward and backward pass) beside plain trl.GRPOTrainer's: the same model, completions and rewards.

python bench/update.py                       (what `make bench` runs after run.py: two cores, no download, 20 minutes)
python bench/update.py --resume              (goes on after the last row that was finished)
python bench/update.py --device cuda         (the same rows on a GPU)
python bench/update.py --against segrl --sides 56 112 168 224 280 336 --groups 8 --dtypes float32 --out DIR
                                             (where reading a prompt once begins to pay: packing.GAIN)
python bench/update.py --short --out DIR     (tiny sizes, for the tests: the numbers mean nothing)

Prints a table and writes update.json beside this file; all rows on a CPU write the table of docs/performance.md. The
model is a Qwen2.5-VL with random weights; its parts are in the proportions of the 3B (`MODEL`): image encoder and head
weigh a quarter and a tenth of the layers.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from step import save_policy
from tables import write_table
from timing import memory_growth_megabytes, seconds
from workload import photograph

from segrl.devices import core_count, device_name
from segrl.files import write_atomically
from segrl.memory_estimate.dimensions import PolicyModel, Vision
from segrl.policies.model_speedups import project_patches
from segrl.training import packing
from segrl.training.speed import share_images

HERE = Path(__file__).parent
MODEL = PolicyModel("qwen2_5_vl", 384, 2, 6, 2, 64, 1152, 1024, True, Vision(192, 2, 512, patch=14))
SHORT_MODEL = PolicyModel("qwen2_5_vl", 64, 1, 2, 1, 32, 128, 1024, True, Vision(64, 1, 64, patch=14))
DTYPES, GROUPS, SIDES, COMPLETION = ("float32", "bfloat16"), (4, 8, 16), (560, 840, 1036), 150
GOAL = {"group": 8, "side": 840, "seconds": 0.3, "memory": 0.45}


@dataclass(frozen=True)
class Row:
    """One update.

    seconds: the median. megabytes: by how much memory grew during it. tokens: those that the language model
    read. operations: those of the language model's layers, as segrl estimates them, ours over plain.
    difference: the largest of a log-probability, ours to plain.
    """

    dtype: str
    group: int
    side: int
    seconds: dict[str, float]
    megabytes: dict[str, float]
    tokens: dict[str, int]
    operations: float
    difference: float

    def ratio(self, of: str) -> float:
        """Ours over plain."""
        values = getattr(self, of)
        return float(values["ours"] / values["plain"])


def main() -> None:
    """Run everything."""
    options = read_options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    packing.GAIN = math.inf  # also where segrl would not
    machine = {"device": device_name(), "threads": options.threads, "torch": torch.__version__}
    machine |= {"against": options.against, "attention": options.attention, "short": options.short}
    rows = finished(options.out, machine) if options.resume else {}
    print(HEAD + "\n" + RULE, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        save_policy(Path(scratch) / "policy", SHORT_MODEL if options.short else MODEL)
        for cell in product(options.dtypes, options.sides, options.groups):
            rows[cell] = rows.get(cell) or one(Path(scratch), options, *cell)
            print(line(rows[cell]), flush=True)
            write(options.out, machine, rows.values())
    is_whole = set(product(DTYPES, SIDES, GROUPS)) == rows.keys()
    if is_whole and (options.out, options.device, options.against) == (HERE, "cpu", "trl"):
        heading = f"`python bench/update.py` on {machine['device']}, {options.threads} threads:"
        write_table("bench/update.py", [heading, "", HEAD, RULE, *map(line, rows.values())])


def finished(out: Path, machine: dict[str, Any]) -> dict[tuple[str, int, int], Row]:
    """The rows of an earlier run on the same machine."""
    path = out / "update.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if content.get("machine") != machine:
        return {}
    return {(row["dtype"], row["side"], row["group"]): Row(**row) for row in content["rows"]}


def write(out: Path, machine: dict[str, Any], rows: Iterable[Row]) -> None:
    """All rows so far."""
    met = [goal_met(row) for row in rows if (row.group, row.side) == (GOAL["group"], GOAL["side"])]
    content = {"machine": machine, "goal": GOAL, "met": met, "rows": [asdict(row) for row in rows]}
    write_atomically(out / "update.json", json.dumps(content, indent=1) + "\n")


def goal_met(row: Row) -> bool:
    """Whether both ratios are within the goal."""
    return row.ratio("seconds") <= GOAL["seconds"] and row.ratio("megabytes") <= GOAL["memory"]


def line(row: Row) -> str:
    """As docs/performance.md has them."""
    cells = [row.dtype, f"{row.side}²", row.group]
    for of, form in (("seconds", ".2f"), ("megabytes", ",.0f"), ("tokens", ",")):
        values = getattr(row, of)
        cells += [f"{values['plain']:{form}}", f"{values['ours']:{form}}"]
    cells += [f"{row.ratio('seconds'):.2f}", f"{row.ratio('megabytes'):.2f}", f"{row.operations:.2f}"]
    return "| " + " | ".join(map(str, [*cells, f"{row.difference:.0e}"])) + " |"


COLUMNS = ("compute type", "picture", "G", "TRL, s", "ours", "TRL, MB", "ours", "TRL, tokens", "ours")
HEAD = "| " + " | ".join((*COLUMNS, "time", "memory", "operations", "log p")) + " |"
RULE = "|---" * (len(COLUMNS) + 4) + "|"


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--repeats", type=int, default=3, help="rounds at the goal's size; one at the others")
    parser.add_argument("--against", choices=("trl", "segrl"), default="trl", help="segrl: with shared_prefix: false")
    parser.add_argument("--attention", default="sdpa", help="ours; flex_attention needs a GPU")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --out that this machine has measured")
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.groups, options.sides, options.repeats = (4,), (112,), 1
    return options


def one(scratch: Path, options: argparse.Namespace, dtype: str, side: int, group: int) -> Row:
    """One update of each, alternating; before it an unmeasured forward pass of each."""
    from segrl.training.shared_prefix import cost_of

    trainers = {name: trainer_of(name, scratch, options, dtype, side, group) for name in ("plain", "ours")}
    updates = {name: update_of(trainer) for name, trainer in trainers.items()}
    shapes: dict[str, list[tuple[int, int]]] = {name: [] for name in trainers}
    logps = {name: log_probabilities(trainer, shapes[name]) for name, trainer in trainers.items()}
    measured: dict[str, list[float]] = {name: [] for name in updates}
    megabytes: dict[str, float] = {}
    for _ in range(options.repeats if (group, side) == (GOAL["group"], GOAL["side"]) else 1):
        for name, update in updates.items():
            megabytes[name] = memory_growth_megabytes(lambda: measured[name].append(seconds(update)))  # noqa: B023
    cost = cost_of(trainers["ours"].model.config.get_text_config())
    operations = {name: sum(cost.of(*shape) for shape in read) for name, read in shapes.items()}
    return Row(
        dtype,
        group,
        side,
        {name: statistics.median(times) for name, times in measured.items()},
        megabytes,
        {name: sum(rows * length for rows, length in read) for name, read in shapes.items()},
        operations["ours"] / operations["plain"],
        float((logps["ours"] - logps["plain"]).abs().max()),
    )


def trainer_of(name: str, scratch: Path, options: argparse.Namespace, dtype: str, side: int, group: int) -> Any:
    """TRL's trainer, or ours, with a rollout of one group of completions of that many tokens."""
    from datasets import Dataset
    from transformers import AutoProcessor
    from trl import GRPOConfig, GRPOTrainer

    from segrl.training.shared_prefix import SharedPrefixTrainer

    completion = 16 if options.short else COMPLETION
    config = GRPOConfig(
        output_dir=str(scratch / "run"),
        use_cpu=options.device == "cpu",
        bf16=dtype == "bfloat16",
        gradient_checkpointing=False,
        per_device_train_batch_size=group,
        num_generations=group,
        max_completion_length=completion,
        report_to=[],
        model_init_kwargs={"dtype": "float32", "attn_implementation": options.attention if name == "ours" else "sdpa"},
    )
    question = "Identify and segment the leftmost person on the right of the large red object. " * 2
    row = {"prompt": [{"role": "user", "content": question}], "image": photograph(side, side)}
    cls = SharedPrefixTrainer if name == "ours" else GRPOTrainer
    trainer = cls(
        model=str(scratch / "policy"),
        args=config,
        reward_funcs=lambda completions, **kwargs: [float(i) for i in range(len(completions))],
        train_dataset=Dataset.from_list([row]),
        processing_class=AutoProcessor.from_pretrained(str(scratch / "policy"), padding_side="left"),
        rollout_func=rollout(completion),
    )
    if name == "ours" or options.against == "segrl":
        share_images(trainer.model)
        project_patches(trainer.model)
    if name == "ours":
        trainer.share_prefixes(lambda line: None)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # there before the first update, whose memory is measured
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def rollout(tokens: int) -> Callable[[list[Any], Any], dict[str, Any]]:
    """Completions of random words, the same for everyone who asks, of `tokens` or one or two fewer."""

    def sample(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        rng = torch.Generator().manual_seed(0)
        lengths = [tokens - (len(prompts) - 1 - i) % 3 for i in range(len(prompts))]
        words = [torch.randint(300, 600, (length,), generator=rng).tolist() for length in lengths]
        return {"prompt_ids": trainer._tokenize_prompts(prompts)[0], "completion_ids": words, "logprobs": None}

    return sample


def update_of(trainer: Any) -> Callable[[], None]:
    """The forward and the backward pass of the loss; gradients are kept where they are, so that weights stay equal."""
    trainer.model.train()
    torch.manual_seed(0)  # TRL shuffles the completions
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.bench_inputs = inputs

    def update() -> None:
        trainer.model.zero_grad(set_to_none=False)
        trainer.accelerator.backward(trainer.compute_loss(trainer.model, inputs))

    return update


def log_probabilities(trainer: Any, shapes: list[tuple[int, int]]) -> torch.Tensor:
    """Of all completions, `(G, C)`. Adds to `shapes` the rows and the length of what the language model reads."""
    inputs = trainer.bench_inputs
    ids, mask = (torch.cat([inputs[f"prompt_{part}"], inputs[f"completion_{part}"]], 1) for part in ("ids", "mask"))
    images = {key: inputs[key] for key in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    handle = trainer.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, inputs["completion_ids"].size(1), **images
        )
    handle.remove()
    return logps


if __name__ == "__main__":
    main()
