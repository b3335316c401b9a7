"""segrl data: look at data sets before a run depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segrl.cli.errors import exits_cleanly

if TYPE_CHECKING:
    from segrl.datasets.check import SplitCheck

app = typer.Typer(help="Look at data sets before a run depends on them.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _data() -> None:
    """Look at data sets before a run depends on them."""


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name, for instance refcoco or cod10k.")],
    root: Annotated[str | None, typer.Option(metavar="DIR", help="The folder that holds its files.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be given again.")] = None,
    segmenter: Annotated[
        str | None, typer.Option(metavar="S", help="Run the gold check with this segmenter, for instance grabcut.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Examples of each split for the gold check.")] = 50,
    floor: Annotated[float, typer.Option(min=0, max=1, help="Mean IoU that the gold check must reach.")] = 0.5,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the reader; may be given again.")
    ] = None,
) -> None:
    """Say what is there and what is missing, where to get it, and compare published counts; status 1 on a fault."""
    from segrl.datasets.check import check as check_splits
    from segrl.datasets.published import BENCHMARKS

    loaded = None
    if segmenter is not None:
        from segrl.segmenters import load

        loaded = load(segmenter)
    found = check_splits(
        name, root, splits=split, segmenter=loaded, n_gold=examples, gold_floor=floor, options=_options(option or [])
    )
    for one in found:
        typer.echo(describe(one))
    if not any(one.faults for one in found):
        return
    if name in BENCHMARKS:
        typer.echo(f"\nofficial page: {BENCHMARKS[name].page}\nunder the root: {BENCHMARKS[name].needs}")
    raise typer.Exit(1)


app.command()(exits_cleanly(check))


def describe(one: SplitCheck) -> str:
    """One split in a line, and a line for each thing that is wrong."""
    counts = "not there" if one.examples is None else f"{one.images} images, {one.examples} examples"
    counted = [n for n in (one.published.images, one.published.examples) if n is not None]
    known = "" if one.faults else ", as published" if counted else ", no published count to compare with"
    gold = "" if one.gold_iou is None else f", gold prompts reach IoU {one.gold_iou:.3f}"
    return "\n".join([f"{one.name} {one.split}: {counts}{known}{gold}", *(f"  {fault}" for fault in one.faults)])


def _options(pairs: list[str]) -> dict[str, Any]:
    """`["per=image"]` → `{"per": "image"}`, values read as YAML."""
    import yaml

    from segrl.errors import DataError

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise DataError(f"an option is written KEY=VALUE, not {pair!r}")
        options[key] = yaml.safe_load(value)
    return options
