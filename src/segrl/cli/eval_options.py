"""The options of `segrl eval`, as typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[
    str | None, typer.Option(metavar="NAME", help="A data set, for instance folder, refcoco or cod10k.")
]
PolicyName = Annotated[
    str,
    typer.Option(
        metavar="P",
        help="tiny, a checkpoint's directory, a name on the hub, openai:MODEL@ADDRESS; "
        "oracle answers from the ground truth, scripted replays --texts.",
    ),
]
SegmenterName = Annotated[
    str | None, typer.Option(metavar="S", help="grabcut, box, or a model of the SAM family [default: by policy]")
]
Root = Annotated[str | None, typer.Option(metavar="DIR", help="The folder that holds the data set.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the run is kept and gone on with [default: runs/eval/NAME-P-S]"),
]
KeyValues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Options of the data set (query=people, split=val), policy.KEY=VALUE, segmenter.KEY=VALUE.",
    ),
]
Texts = Annotated[Path | None, typer.Option(metavar="FILE", help='For scripted: JSON lines {"id": …, "text": …}.')]
Format = Annotated[str | None, typer.Option(metavar="F", help="Read answers in this format.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes; the numbers are those of one.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences at once; above 1 answers may change.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Longest answer [default: fits the policy].")
]
Samples = Annotated[int, typer.Option(min=1, help="Answers that vote over the mask.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the samples.")]
SecondLook = Annotated[bool, typer.Option("--second-look", help="Ask again about the region found.")]
Saliency = Annotated[
    bool | None, typer.Option(help="E, F and weighted F measures and MAE [default: for the sets of that field]")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of each process on the CPU.")]

SuiteName = Annotated[
    str | None,
    typer.Option(metavar="general", help="MMBench, MME, POPE and AI2D on the same checkpoint, through lmms-eval."),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="With --suite: what the policy was trained from; the change is told."),
]
LmmsPython = Annotated[
    Path | None, typer.Option(metavar="PYTHON", help="With --suite: the Python of an environment that has lmms-eval.")
]
Install = Annotated[bool, typer.Option("--install", help="With --suite: make an environment with lmms-eval, once.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="With --suite: N samples of each benchmark.")]
