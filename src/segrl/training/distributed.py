"""Training on several processes of one machine, started by `accelerate launch`.

Each process runs `--module segrl.training.distributed RECIPE DIR [KEY=VALUE …]`. It trains and nothing else:
`segrl train RECIPE --out DIR` afterwards measures before and after, and writes the report.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from segrl.devices import COMPUTE_TYPE, core_count, cpu_compute_type, is_main
from segrl.errors import SegrlError
from segrl.files import write_atomically
from segrl.text import one_line
from segrl.training.checkpoints import RunDir
from segrl.training.parts import open_stages
from segrl.training.recipe import Recipe
from segrl.training.train import TrainResult, result_of, train

COMMAND = "SEGRL_LAUNCHED_BY"
"""Environment variable that tells the processes which command started them, for run.json."""


def command(processes: int, target: Sequence[str]) -> list[str]:
    """The command that starts `target` (a script, or `--module` and a module, with arguments) `processes` times.

    What FSDP and DeepSpeed need stands in the recipe's `trainer` section; a configuration file of
    accelerate's own is not read. On a CPU the processes share the cores.
    """
    threads = max(1, core_count() // processes)
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--multi_gpu", "--num_machines", "1", "--num_processes", str(processes)),  # torchrun; also without GPUs
        *("--mixed_precision", "no", "--dynamo_backend", "no"),  # the trainer's own options say so
        *("--num_cpu_threads_per_process", str(threads), "--main_process_port", "0"),
        *target,
    ]


def launch(recipe: Recipe, out: Path | str, processes: int, *, say: Callable[[str], None] = print) -> TrainResult:
    """`segrl.training.train` on several processes of this machine; prints the command and keeps it in `launch.txt`.

    Raises RecipeError as `train`, and SegrlError where a process failed: it has said why.
    """
    run = RunDir(Path(out))
    run.claim(recipe)
    if run.finished.exists():
        return result_of(run)
    line = command(processes, ["--module", "segrl.training.distributed", str(run.recipe), str(run.path)])
    said = shlex.join(line)
    say(said)
    write_atomically(run.path / "launch.txt", said + "\n")
    _free_memory()
    status = subprocess.run(
        line, env={**os.environ, COMMAND: said, COMPUTE_TYPE: cpu_compute_type().name}, check=False
    ).returncode
    if status != 0 or not run.finished.exists():
        raise SegrlError(f"training ended with status {status}; what went wrong stands above")
    return result_of(run)


def _free_memory() -> None:
    """Gives back what a measurement in this process holds on the GPU, where the first process is to train."""
    import gc

    from segrl.segmenters.loading import load_sam

    load_sam.cache_clear()
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main(arguments: Sequence[str]) -> int:
    """Runs every stage of the recipe; status 2 and one line for what the user can put right."""
    if len(arguments) < 2:
        print("usage: python -m segrl.training.distributed RECIPE DIR [KEY=VALUE …]", file=sys.stderr)
        return 2
    recipe, out, *overrides = arguments
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
    model = None
    try:
        for stage in open_stages(recipe, overrides):
            model = train(stage.resolved(model), stage.directory(Path(out))).model_dir
    except SegrlError as error:
        if is_main():
            print(f"segrl: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
