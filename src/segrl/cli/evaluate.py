"""segrl eval: measure a policy on a data set, so that the numbers can be trusted."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from segrl.cli import eval_options as given
from segrl.cli.options import key_values
from segrl.cli.suite import Suite, check_suite
from segrl.errors import SegrlError

if TYPE_CHECKING:
    from segrl.evaluation import EvalRecord, EvalSettings


def evaluate(
    dataset: given.Dataset = None,
    policy: given.PolicyName = "tiny",
    segmenter: given.SegmenterName = None,
    root: given.Root = None,
    out: given.Out = None,
    options: given.KeyValues = None,
    texts: given.Texts = None,
    answer_format: given.Format = None,
    processes: given.Processes = 1,
    batch_size: given.BatchSize = 1,
    max_new_tokens: given.MaxNewTokens = None,
    samples: given.Samples = 1,
    temperature: given.Temperature = 0.0,
    seed: given.Seed = 0,
    second_look: given.SecondLook = False,
    saliency: given.Saliency = None,
    threads: given.Threads = 1,
    suite: given.SuiteName = None,
    base: given.Base = None,
    lmms_python: given.LmmsPython = None,
    install: given.Install = False,
    limit: given.Limit = None,
) -> None:
    """Measure a policy on a data set: a table, metrics.json and a page; the same command goes on after a stop."""
    from segrl.evaluation import Decoding, EvalSettings

    asked = Suite(suite, base, lmms_python, install, limit)
    asked.check()
    if dataset is not None:
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
            decoding=Decoding(max_new_tokens, batch_size, samples, temperature, seed, second_look),
            saliency=saliency,
            threads=threads,
        )
        out = out or _default_out(settings)
        check_suite(out, policy)
        _measure(settings, out, processes)
    elif root is not None or options or texts is not None:
        raise SegrlError("--root, --texts and KEY=VALUE go with --dataset: name a data set")
    elif suite is None:
        raise SegrlError("what is to be measured? Name a data set with --dataset, or give --suite general")
    if suite is not None:
        asked.run(policy, out, batch_size=batch_size, processes=processes)


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


def _measure(settings: EvalSettings, out: Path, processes: int) -> None:
    """Runs the evaluation and shows what came of it."""
    from segrl.evaluation import EvalDir, Share, run, run_on_processes
    from segrl.evaluation.result import summary_of
    from segrl.log_filters import quieten

    quieten()
    share = Share.of_environment()
    if processes > 1 and share.world == 1:
        finished = run_on_processes(settings, out, processes, _Counting().on_done)
    else:
        finished = run(settings, out, share=share, on_window=_Counting().on_window)
    if not finished:
        typer.echo(f"process {share.rank} of {share.world} has done its part; the last one writes the result")
        return
    directory = EvalDir(out)
    if not directory.has_page:
        _write_page(settings, out)
    _show(summary_of(directory), f"metrics {directory.metrics}\nreport  {directory.report}")


def _write_page(settings: EvalSettings, out: Path) -> None:
    from segrl import datasets
    from segrl.report.evaluation import keep_pictures, write_page

    keep_pictures(out, datasets.load(settings.dataset, **settings.dataset_options))
    write_page(out)


def _show(summary: Mapping[str, Any], files: str) -> None:
    """The tables, where the files are, and in the last line how fast it went."""
    from rich.console import Console

    from segrl.cli.evaluation_tables import answers_line, speed_line, tables_of

    console = Console()
    for table in tables_of(summary):
        console.print(table)
    for line in (answers_line(summary), files, speed_line(summary)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


class _Counting:
    """Says now and then how far an evaluation is."""

    def __init__(self) -> None:
        from segrl.jobs.progress import NowAndThen

        self._begun, self._now_and_then = time.monotonic(), NowAndThen()
        self._done, self._overlap = 0, 0.0

    def on_window(self, records: Sequence[EvalRecord], finished: int, total: int) -> None:
        """After each window of a process that works alone, or on its share."""
        self._done += len(records)
        self._overlap += sum(record.iou for record in records)
        self._say(f"{finished}/{total}, gIoU so far {self._overlap / self._done:.3f}", finished == total)

    def on_done(self, done: int) -> None:
        """Where several processes work: how many they have answered together."""
        self._done = done
        self._say(f"{done} answered", False)

    def _say(self, text: str, is_last: bool) -> None:
        if self._now_and_then.is_due(is_last):
            seconds = max(time.monotonic() - self._begun, 1e-9)
            typer.echo(f"{text}, {self._done / seconds:.1f} a second")
