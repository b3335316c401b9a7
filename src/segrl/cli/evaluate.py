"""segrl eval, suite, compare and report: evaluate policies, and compare and show the results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segrl.cli.common import (
    MaxNewTokens,
    Samples,
    SecondLook,
    Seed,
    Temperature,
    Turns,
    VoteRules,
    decoding_values,
    key_values,
    watch_evaluation,
)
from segrl.errors import SegrlError

if TYPE_CHECKING:
    from segrl.evaluation import EvalSettings


Dataset = Annotated[str, typer.Option(metavar="NAME", help="A data set, for instance folder, refcoco or cod10k.")]
PolicyName = Annotated[
    str,
    typer.Option(
        metavar="P",
        help="tiny, a checkpoint directory, a name on the hub, openai:MODEL@URL; words (passes the query to the "
        "segmenter), oracle (answers from the ground truth), scripted (replays --texts).",
    ),
]
SegmenterName = Annotated[
    str | None,
    typer.Option(
        metavar="S", help="grabcut, tiny, box, shapes, a SAM model, concept:SAM3 [default: depends on the policy]."
    ),
]
Root = Annotated[str | None, typer.Option(metavar="DIR", help="Directory of the data set.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Output directory; an evaluation in it is resumed [default: runs/eval/NAME-P-S]."),
]
KeyValues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Options of the data set (query=people, split=val), policy.KEY=VALUE, segmenter.KEY=VALUE.",
    ),
]
Texts = Annotated[
    Path | None, typer.Option(metavar="FILE", help='Answers for --policy scripted: JSON lines {"id": …, "text": …}.')
]
Format = Annotated[
    str | None, typer.Option(metavar="F", help="Parse answers in this format [default: the policy's own].")
]
Processes = Annotated[int, typer.Option(min=1, help="Number of processes; the results are the same as with one.")]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on a Ray cluster, one actor per GPU: auto, HOST:PORT, or local."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences generated together; above 1 answers may change.")]
Baseline = Annotated[
    bool,
    typer.Option(help="Also evaluate the plain query as the segmenter's prompt, if it takes words."),
]
Saliency = Annotated[
    bool | None,
    typer.Option(help="Also E, F and weighted F measures and MAE [default: for saliency and camouflage data sets]."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each process.")]


def evaluate(
    dataset: Dataset,
    policy: PolicyName = "tiny",
    segmenter: SegmenterName = None,
    root: Root = None,
    out: Out = None,
    options: KeyValues = None,
    texts: Texts = None,
    answer_format: Format = None,
    processes: Processes = 1,
    ray: Ray = None,
    batch_size: BatchSize = 1,
    max_new_tokens: MaxNewTokens = None,
    samples: Samples = 1,
    temperature: Temperature = None,
    seed: Seed = 0,
    second_look: SecondLook = False,
    turns: Turns = 1,
    vote: VoteRules = None,
    baseline: Baseline = True,
    saliency: Saliency = None,
    threads: Threads = 1,
) -> None:
    """Evaluate a policy on a data set: a table, metrics.json and a report. The same command resumes it."""
    from segrl.evaluation import Decoding, EvalSettings
    from segrl.evaluation.general import check_policy

    own, of_policy, of_segmenter = _sorted_options(key_values(options or ()))
    settings = EvalSettings(
        policy=policy,
        dataset=dataset,
        segmenter=segmenter,
        policy_options=of_policy,
        dataset_options=({} if root is None else {"root": root}) | own,
        segmenter_options=of_segmenter,
        texts=None if texts is None else str(texts),
        answer_format=answer_format,
        decoding=Decoding.of(
            decoding_values(samples, temperature, seed, second_look, vote, turns)
            | {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        ),
        saliency=saliency,
        threads=threads,
    )
    out = out or _default_out(settings)
    check_policy(out, policy, evaluated=False)
    _measure(settings, out, processes, ray, baseline)


def _sorted_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Options of the data set, of the policy and of the segmenter."""
    found: dict[str, dict[str, Any]] = {"dataset": {}, "policy": {}, "segmenter": {}}
    for key, value in given.items():
        owner, dot, name = key.partition(".")
        found[owner if dot and owner in found else "dataset"][name if dot and owner in found else key] = value
    return found["dataset"], found["policy"], found["segmenter"]


def _default_out(settings: EvalSettings) -> Path:
    names = (settings.dataset, Path(settings.policy).name, Path(settings.segmenter_name).name)
    return Path("runs/eval") / "-".join(re.sub(r"[^\w.+]+", "_", name) for name in names)


def _measure(settings: EvalSettings, out: Path, processes: int, ray: str | None, baseline: bool) -> None:
    """Runs the evaluation and its baseline, and shows what came of it."""
    from rich.console import Console

    from segrl.errors import quieten
    from segrl.evaluation import EvalDir, Share, run, run_on
    from segrl.evaluation.result import with_baseline
    from segrl.jobs.cluster import executor

    quieten()
    share, watch = Share.of_environment(), watch_evaluation(Console(), "evaluated")
    if baseline and settings.baseline is not None and share.world == 1:
        run(settings.baseline, EvalDir(out).baseline.path, share=Share())
    if ray is not None or (processes > 1 and share.world == 1):
        finished = run_on(settings, out, executor(processes, ray), watch)
    else:
        finished = run(settings, out, share=share, on_window=watch)
    if not finished:
        typer.echo(f"process {share.rank} of {share.world} is finished; the last one writes the result")
        return
    directory = EvalDir(out)
    if not directory.has_page:
        _write_page(settings, out)
    _show(with_baseline(directory), f"metrics {directory.metrics}\nreport  {directory.report}")


def _write_page(settings: EvalSettings, out: Path) -> None:
    from segrl import datasets
    from segrl.reporting import write_report
    from segrl.reporting.evaluation import keep_pictures

    keep_pictures(out, datasets.load(settings.dataset, **settings.dataset_options))
    write_report(out)


def _show(summary: Mapping[str, Any], files: str) -> None:
    """The tables, where the files are, and in the last line how fast it went."""
    from rich.console import Console

    from segrl.cli.evaluation_tables import answers_line, reading_lines, speed_line, tables_of

    console = Console()
    for table in tables_of(summary):
        console.print(table)
    for line in (answers_line(summary), *reading_lines(summary), files, speed_line(summary)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def suite(
    policy: Annotated[str, typer.Option(metavar="P", help="A checkpoint directory or a name on the hub.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model that the policy was trained from, to show the change."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Output directory; may be that of an evaluation [default: runs/eval/general-P]."
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Create an environment with lmms-eval first (once).")
    ] = False,
    lmms_python: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="Python of an environment that has lmms-eval.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use N samples of each benchmark.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of lmms-eval.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
) -> None:
    """Evaluate general ability with lmms-eval (MMBench, MME, POPE, AI2D), and the change from the base model."""
    from rich.console import Console

    from segrl.cli.evaluation_tables import general_table
    from segrl.evaluation.general import RESULT, check_policy, general
    from segrl.reporting import write_report

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SegrlError("start segrl suite in one process: --processes N lets lmms-eval use several GPUs")
    place = out or Path("runs/eval") / re.sub(r"[^\w.+]+", "_", f"general-{Path(policy).name}")
    check_policy(place, policy)
    found = general(
        policy,
        place,
        base=base,
        python=lmms_python,
        install=install,
        limit=limit,
        batch_size=batch_size,
        processes=processes,
        say=typer.echo,
    )
    Console().print(general_table(found))
    typer.echo(f"scores  {place / RESULT}\nreport  {write_report(place)}")


Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN_A RUN_B [RUN]...", help="Directories of evaluations on the same examples.")
]


def compare(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all numbers to this JSON file.")] = None,
) -> None:
    """Compare evaluations. Two: B minus A for each metric and slice, with paired intervals. More: metrics of each."""
    from segrl.files import make_directory, write_atomically

    if len(runs) < 2:
        raise SegrlError("name two or more evaluations to compare")
    if out is not None:
        if out.is_dir():
            raise SegrlError(f"{out} is a directory: --out names the file to write")
        make_directory(out.parent)
    found = _two(runs) if len(runs) == 2 else _several(runs)
    if out is not None:
        write_atomically(out, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        typer.echo(f"numbers {out}")


def _two(runs: Sequence[Path]) -> Mapping[str, Any]:
    from rich.console import Console

    from segrl.cli.evaluation_tables import comparison_lines, comparison_tables
    from segrl.evaluation import compare_runs

    found = compare_runs(*runs)
    console = Console()
    for table in comparison_tables(found, (runs[0].name, runs[1].name)):
        console.print(table)
    for line in comparison_lines(found):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return found


def _several(runs: Sequence[Path]) -> Mapping[str, Any]:
    from rich.console import Console

    from segrl.cli.evaluation_tables import checkpoints_table
    from segrl.evaluation import best_of_checkpoints

    found = best_of_checkpoints(runs)
    Console().print(checkpoints_table(found))
    return found


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a training run or an evaluation.")],
) -> None:
    """Write the HTML report of a training run (also while it is running) or of an evaluation."""
    from segrl.api import report as write

    typer.echo(write(directory))
