"""segrl data: look at data sets before a run depends on them, and make data for a cold start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segrl.cli.common import Base, exits_cleanly, key_values

if TYPE_CHECKING:
    from segrl.datasets.check import SplitCheck

app = typer.Typer(help="Check data sets; make data for a cold start.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Check data sets; make data for a cold start."""


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name, for instance refcoco or cod10k.")],
    root: Annotated[str | None, typer.Option(metavar="DIR", help="Directory of the data set.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Check this split only; may be repeated.")] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="S", help="Also segment with gold mask prompts and this segmenter, for instance grabcut."),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Examples of each split for that check.")] = 50,
    floor: Annotated[float, typer.Option(min=0, max=1, help="Mean IoU that the gold mask prompts must reach.")] = 0.5,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the data set; may be repeated.")
    ] = None,
) -> None:
    """Check a data set: what is there, what is missing and where to get it, published counts; status 1 on a fault."""
    from segrl.datasets.check import BENCHMARKS
    from segrl.datasets.check import check as check_splits

    loaded = None
    if segmenter is not None:
        from segrl.segmenters import load

        loaded = load(segmenter)
    found = check_splits(
        name, root, splits=split, segmenter=loaded, n_gold=examples, gold_floor=floor, options=key_values(option or ())
    )
    for one in found:
        typer.echo(describe(one))
    if not any(one.faults for one in found):
        return
    if name in BENCHMARKS:
        typer.echo(f"\nofficial page: {BENCHMARKS[name].page}\nunder the root: {BENCHMARKS[name].needs}")
    raise typer.Exit(1)


app.command()(exits_cleanly(check))


def prompts(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name, for instance cod10k or folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory for data.jsonl and the images.")],
    root: Annotated[str | None, typer.Option(metavar="DIR", help="Directory of the data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Split, if the data set has several.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw this many examples with --seed [default: all].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --sample.")] = 0,
    points: Annotated[int, typer.Option(min=1, help="Maximum number of points on each object.")] = 2,
    negatives: Annotated[
        int, typer.Option(min=0, help="Maximum number of negative points per object, inside its box.")
    ] = 1,
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="S", help="Keep negative points only where they improve this segmenter's mask."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the data set; may be repeated.")
    ] = None,
) -> None:
    """Write gold mask prompts for a cold start: box, points on the object, and negative points where useful."""
    from segrl import datasets
    from segrl.datasets.gold import write_prompts
    from segrl.jobs.progress import Progress

    options = key_values(option or ())
    options |= {key: value for key, value in (("root", root), ("split", split)) if value is not None}
    options |= {} if sample is None else {"sample": {"n": sample, "seed": seed}}
    loaded = None
    if segmenter is not None:
        from segrl.segmenters import load

        loaded = load(segmenter)
    with Progress("examples", before_first="reading") as progress:
        written = write_prompts(
            datasets.load(name, **options),
            out,
            n_points=points,
            n_negatives=negatives,
            segmenter=loaded,
            about={"dataset": {"name": name, **options}, "segmenter": segmenter},
            on_progress=progress.update,
        )
    iou = "" if written.mean_iou is None else f"; through {segmenter} they reach IoU {written.mean_iou:.3f}"
    typer.echo(
        f"{written.examples} examples ({written.without_target} without a target), {written.images} images, "
        f"{written.prompts} boxes, {written.foreground_points} points on and {written.background_points} beside "
        f"objects{iou}\n{out / 'data.jsonl'}"
    )


app.command()(exits_cleanly(prompts))


def reason(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that segrl data prompts wrote.")],
    policy: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="The model that writes: openai:MODEL@http://host:port/v1, a directory, or a name on the hub.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory.")],
    answer_format: Annotated[str, typer.Option(metavar="A", help="Answer format of the gold answers.")] = "seg-r1",
    base: Base = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens per text.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Seed for sampling.")] = 0,
) -> None:
    """Have a model write the reasoning for gold mask prompts; keep texts that parse and agree with them."""
    from segrl import answers, policies
    from segrl.datasets.write_reasoning import write_reasoning
    from segrl.jobs.progress import Progress

    answers.get(answer_format)
    with Progress("lines", before_first="waiting for the first answers") as progress:
        done = write_reasoning(
            source,
            out,
            policies.load(policy, base=base),
            answer_format=answer_format,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            about={"policy": policy.partition("@")[0]},
            on_progress=lambda done, total, dropped: progress.update(done, total, f"{sum(dropped.values())} dropped"),
        )
    why = ", ".join(f"{count} {name}" for name, count in sorted(done.dropped.items())) or "none"
    typer.echo(f"{done.kept} kept, {sum(done.dropped.values())} dropped ({why})\n{out / 'data.jsonl'}")


app.command()(exits_cleanly(reason))


def describe(one: SplitCheck) -> str:
    """One split in a line, and a line for each thing that is wrong."""
    images = "" if one.images is None else f"{one.images} images, "
    counts = "not there" if one.examples is None else f"{images}{one.examples} examples"
    counted = [n for n in (one.published.images, one.published.examples) if n is not None]
    known = "" if one.faults else ", as published" if counted else ", no published count to compare with"
    gold = "" if one.gold_iou is None else f", gold prompts reach IoU {one.gold_iou:.3f}"
    return "\n".join(
        [f"{one.name} {one.split}: {counts}{known}{gold}", *(f"  {line}" for line in (*one.faults, *one.notes))]
    )
