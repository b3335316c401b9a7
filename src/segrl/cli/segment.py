"""segrl segment: masks for one's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from segrl.batching import BatchSize

FORMATS = "coco, yolo, rle, png, labelme"


def segment(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTOS...", help="Images, folders, patterns, or CSV/JSONL with image and query."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where masks go; a run there is gone on with.")],
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="What to find; may be given again.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", "-f", metavar="F,F…", help=f"One or several of {FORMATS}.")
    ] = "coco,png",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also pictures with what was found drawn over them.")
    ] = False,
    policy: Annotated[str, typer.Option(metavar="P", help="tiny, a directory, or a model's name on the hub.")] = "tiny",
    segmenter: Annotated[
        str | None, typer.Option(metavar="S", help="grabcut or a model of the SAM family [default: fits the policy].")
    ] = None,
    answer_format: Annotated[str | None, typer.Option(metavar="A", help="Default: the policy's own.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer [default: fits the policy].")
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="N|auto", help="Queries answered together.")] = "auto",
    processes: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes that share the work; auto: one for each GPU.")
    ] = "1",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, … [default: the first GPU, or the CPU].")
    ] = None,
) -> None:
    """Find what a sentence says in pictures and write masks. The same command goes on after an interruption.

    Exit status: 0 all images were used, 1 some could not be (they are named at the end), 2 nothing was done.
    """
    from segrl.cli.segment_view import View
    from segrl.folder_job import Plan, find_jobs, segment_photos
    from segrl.jobs.workers import executor
    from segrl.pipeline import fitting_segmenter

    chosen = [name.strip() for name in formats.split(",") if name.strip()] + ["overlay"] * overlay
    model = {
        "policy": policy,
        "segmenter": segmenter or fitting_segmenter(policy),
        "answer_format": answer_format,
        "max_new_tokens": max_new_tokens,
    }
    plan = Plan(out, tuple(chosen), {**model, "device": device}, _batch_size(batch_size))
    inputs = find_jobs(photos, query or [], leave_out=out)
    view = View(out)
    view.announce(inputs, model)
    with view:
        summary = segment_photos(inputs.jobs, plan, executor=executor(_processes(processes)), on_image=view.on_image)
    view.show(summary)
    if summary.broken:
        raise typer.Exit(1)


def _batch_size(text: str) -> BatchSize:
    return "auto" if text == "auto" else _positive("--batch-size", text)


def _processes(text: str) -> int:
    if text != "auto":
        return _positive("--processes", text)
    from segrl.jobs.workers import gpu_count

    return max(1, gpu_count())


def _positive(option: str, text: str) -> int:
    from segrl.errors import SegrlError

    if not text.isdecimal() or int(text) < 1:
        raise SegrlError(f"{option} is a number above 0, or auto, not {text!r}")
    return int(text)
