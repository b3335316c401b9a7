"""The reward's speed: prints a table and writes results.json (one entry per row) and growth.json beside this file.

python bench/run.py                                      (what `make bench` runs: two cores, no download)
python bench/run.py --kind hiera_large --dtype bfloat16 --device cuda
python bench/run.py --only parsing                       (this row alone, by the name of its function; writes nothing)
python bench/run.py --short --out DIR                    (tiny sizes, for the tests: the numbers mean nothing)
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from growth import floor, growth
from rows import Row, against_plain, one_group, parsing, scores, tiny_prompts, warm
from workload import Workload, photograph

from segrl.devices import core_count
from segrl.files import write_atomically

HERE = Path(__file__).parent


def main() -> None:
    """Run everything."""
    options = read_options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        work = Workload(options.kind, Path(scratch), options.device, options.dtype)
        if options.short:
            work = replace(work, kind="sam2", image_wh=(96, 72))
        machine = describe(options, work)
        print(machine)
        rows = []
        for row in table(work, options):
            rows.append(row)
            show(row)
        if options.only:
            return
        save(options.out / "results.json", [asdict(row) for row in rows])
        tables = {"machine": machine, "floor": floor(work), "growth": []}
        for entry in growth(work, 1 if options.short else 4):
            tables["growth"].append(entry)
            print(
                "  ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in entry.items()
                )
            )
            sys.stdout.flush()
        save(options.out / "growth.json", tables)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="hiera_tiny", help="a kind of tests/support/random_weights.py")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", default="", metavar="ROW", help="parsing, scores, warm, …: a function of rows.py")
    parser.add_argument("--short", action="store_true")
    return parser.parse_args()


def table(work: Workload, options: argparse.Namespace) -> Iterator[Row]:
    """The rows, in the order of the promises."""
    repeats, threads = 1 if options.short else 5, torch.get_num_threads()
    beside_plain = (
        partial(against_plain, work, repeats, 1, 5.0, "the same against one plain call per completion"),
        partial(against_plain, work, repeats, 3, 10.0, "G = 8, three boxes each, against one plain call per box"),
    )
    rows = [partial(one_group, work, repeats), *beside_plain, partial(warm, work, repeats)]
    rows += [partial(scores, repeats, 84 if options.short else 840, options.device)]
    alone = [partial(parsing, repeats, 40 if options.short else 4000)]
    alone += [partial(tiny_prompts, repeats, photograph(400, 300))]
    for row in (*rows, *alone):
        if options.only in ("", row.func.__name__):
            torch.set_num_threads(1 if row in alone else threads)
            yield row()
    torch.set_num_threads(threads)


def show(row: Row) -> None:
    """One line a row."""
    times = ", ".join(f"{name} {value:.3g} s" for name, value in row.seconds.items())
    print(f"{'met ' if row.met else 'MISS'} {row.measured:10.3g} ({row.goal}) {row.name}")
    print(f"                {row.encoder_calls} encoder and {row.decoder_calls} decoder calls; {times}", flush=True)


def describe(options: argparse.Namespace, work: Workload) -> dict[str, str | int]:
    """What ran this."""
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor()
    return {
        "device": device or platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "segmenter": work.kind,
        "dtype": options.dtype,
    }


def save(path: Path, content: object) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
