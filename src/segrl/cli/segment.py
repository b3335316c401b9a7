"""segrl segment: masks for your own images."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segrl.cli.common import (
    AnswerFormat,
    Base,
    Device,
    MaxNewTokens,
    PolicyName,
    Samples,
    SecondLook,
    Seed,
    SegmenterName,
    Temperature,
    Turns,
    VoteRules,
    decoding_values,
)
from segrl.errors import SegrlError
from segrl.tiny import DEFAULT_POLICY

if TYPE_CHECKING:
    import numpy as np

    from segrl.exports import Style
    from segrl.folder_job import Inputs, Plan
    from segrl.pipeline import BatchSize
    from segrl.result import Result

FORMATS = "coco, yolo, rle, png, cutout, labelme, label-studio"

PIPE = "-"
"""In place of pictures: one from standard input, its mask to standard output."""

NOT_PIPED = ("out", "prompts", "limit", "by_doubt", "review", "prune")
"""Options of many pictures."""

PIPED = ("png", "cutout", "overlay")
"""What a single picture can be written as, all of them PNG."""


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTOS...",
        help="Images, folders, glob patterns, or a CSV/JSONL table of image and query; - is one image on standard "
        "input; .parquet, WebDataset's .tar and hub:NAME@SPLIT are answered in shards.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Output directory; a run in it is resumed. Required, except with -.")
]
Queries = Annotated[
    list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="What to find; may be repeated.")
]
Formats = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="F,F…", help=f"One or several of {FORMATS} [default: coco,png]."),
]
Overlay = Annotated[
    bool, typer.Option("--overlay", help="Also write images with masks, boxes and points drawn over them.")
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Boxes or points to segment instead of asking a policy: COCO's .json, YOLO's data.yaml or a .jsonl.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Parse answers strictly, as in training; repair nothing.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Use the first N images only.")]
MinArea = Annotated[int, typer.Option(min=0, metavar="N", help="Drop objects of fewer than N pixels.")]
MinConfidence = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="C",
        help="Drop objects of lower confidence (agreement of a vote, else the segmenter's score).",
    ),
]
ByDoubt = Annotated[bool, typer.Option("--by-doubt", help="Sort exports by confidence, the lowest first.")]
Review = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Also write the N images of lowest confidence to DIR/review, to be corrected."
    ),
]
ExactPolygons = Annotated[
    bool, typer.Option("--exact-polygons", help="Do not simplify the polygons of LabelMe and Label Studio.")
]
Page = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Page or frame to read of files with several, from 0 [default: 0]."),
]
MaxMegapixels = Annotated[float, typer.Option(min=0, metavar="M", help="Refuse larger images.")]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="First remove the results of deleted images and of queries that are not given here."),
]
BatchSizeText = Annotated[str, typer.Option(metavar="N|auto", help="Queries generated together.")]
ProcessCount = Annotated[str, typer.Option(metavar="N|auto", help="Number of processes; auto: one per GPU.")]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on a Ray cluster, in shards: auto, HOST:PORT, or local."),
]


def segment(
    photos: Photos,
    out: Out = None,
    query: Queries = None,
    formats: Formats = None,
    overlay: Overlay = False,
    policy: PolicyName = DEFAULT_POLICY,
    segmenter: SegmenterName = None,
    prompts: Prompts = None,
    answer_format: AnswerFormat = None,
    base: Base = None,
    strict: Strict = False,
    max_new_tokens: MaxNewTokens = None,
    turns: Turns = 1,
    samples: Samples = 1,
    temperature: Temperature = None,
    seed: Seed = 0,
    second_look: SecondLook = False,
    vote: VoteRules = None,
    limit: Limit = None,
    min_area: MinArea = 0,
    min_confidence: MinConfidence = 0.0,
    by_doubt: ByDoubt = False,
    review: Review = 0,
    exact_polygons: ExactPolygons = False,
    page: Page = None,
    max_megapixels: MaxMegapixels = 179,
    prune: Prune = False,
    batch_size: BatchSizeText = "auto",
    processes: ProcessCount = "1",
    ray: Ray = None,
    device: Device = None,
) -> None:
    """Segment images from text queries and write masks. The same command resumes an interrupted run.

    Exit status: 0 all images were processed, 1 some failed (listed at the end), 2 nothing was done.
    """
    from segrl.folder_job import Plan, fingerprint, is_sharded
    from segrl.loading import folder_options

    drawn = decoding_values(samples, temperature, seed, second_look, vote, turns)
    model = {"segmenter": segmenter or "tiny"} if prompts is not None else folder_options(
        policy, segmenter, answer_format=answer_format, max_new_tokens=max_new_tokens, base=base,
        reading="strict" if strict else "lenient", decoding=drawn,
    )  # fmt: skip
    style = _style(exact_polygons, page, max_megapixels)
    chosen = [name.strip() for name in (formats or "").split(",") if name.strip()] + ["overlay"] * overlay
    if PIPE in photos:
        _check_pipe(photos, query or [], locals())
        return _pipe((query or [""])[0], chosen, {**model, "device": device}, (min_area, min_confidence), style)
    place, in_shards = _place(out), ray is not None or any(map(is_sharded, photos))
    inputs = None if in_shards else _inputs(photos, query or [], place, limit, prompts)
    plan = Plan(
        place, tuple(chosen if formats else ["coco", "png", *chosen]), {**model, "device": device},
        _batch_size(batch_size), tuple(query or ()), style, min_area, None if prompts is None else fingerprint(prompts),
        min_confidence, by_doubt, review)  # fmt: skip
    if inputs is not None:
        return _segment(inputs, plan, model, _processes(processes), prune)
    _check_shards({"--format": formats, "--prompts": prompts, "--prune": prune, "--overlay": overlay})
    _segment_shards(photos, plan, limit, _processes(processes), ray)


def _style(exact_polygons: bool, page: int | None, max_megapixels: float) -> Style:
    from segrl.exports import Style
    from segrl.images import PictureOptions

    return Style(exact_polygons, PictureOptions(page=page, max_megapixels=max_megapixels))


def _place(out: Path | None) -> Path:
    if out is None:
        raise SegrlError("--out DIR is missing: the directory for the masks")
    return out


def _segment(inputs: Inputs, plan: Plan, model: Mapping[str, Any], processes: int, prunes: bool) -> None:
    from segrl.cli.segment_view import View
    from segrl.folder_job import segment_photos
    from segrl.jobs.cluster import executor

    view = View(plan.out)
    view.announce(inputs, model)
    with view:
        summary = segment_photos(inputs.jobs, plan, executor=executor(processes), on_image=view.on_image, prunes=prunes)
    view.show(summary)
    if summary.broken:
        raise typer.Exit(1)


def _check_shards(others: Mapping[str, Any]) -> None:
    for option, value in others.items():
        if value:
            raise SegrlError(f"{option} cannot be used with shards, which are written as parquet files")


def _segment_shards(photos: Sequence[str], plan: Plan, limit: int | None, processes: int, ray: str | None) -> None:
    """Of parquet files, WebDataset's and the hub's, and on a cluster of pictures, too."""
    if plan.by_doubt or plan.review:
        raise SegrlError("--by-doubt and --review cannot be used with shards, which are written as parquet files")
    import dataclasses

    from segrl.cli.segment_view import View
    from segrl.folder_job import find_shards, segment_shards
    from segrl.jobs.cluster import executor

    if not plan.queries:
        raise SegrlError("--query is missing: what to find")
    plan = dataclasses.replace(plan, out=plan.out.absolute(), formats=())
    shards = find_shards(photos, leave_out=plan.out, limit=limit)
    view = View(plan.out, "shards")
    with view:
        summary = segment_shards(shards, plan, executor=executor(processes, ray), on_shard=view.on_image)
    view.show(summary)
    if summary.broken:
        raise typer.Exit(1)


def _inputs(
    photos: Sequence[str], queries: Sequence[str], out: Path, limit: int | None, prompts: Path | None
) -> Inputs:
    from segrl.folder_job import find_jobs, with_prompts

    if prompts is None:
        return find_jobs(photos, queries, leave_out=out, limit=limit)
    if queries:
        raise SegrlError("--prompts and --query exclude each other: the class or query in the file is the query")
    return with_prompts(find_jobs(photos, [], leave_out=out, limit=limit, needs_query=False), prompts)


def _check_pipe(photos: Sequence[str], queries: Sequence[str], options: Mapping[str, Any]) -> None:
    if len(photos) > 1 or len(queries) != 1 or not queries[0].strip():
        raise SegrlError("- takes one image and one --query")
    for name in NOT_PIPED:
        if options[name]:
            raise SegrlError(f"--{name.replace('_', '-')} cannot be used with -: one image goes to standard output")


def _pipe(
    query: str,
    formats: Sequence[str],
    model: Mapping[str, Any],
    least: tuple[int, float],
    style: Style,
) -> None:
    """Reads the image, asks about it, writes one file. An answer that cannot be parsed ends with status 2.

    least: area and confidence of what is kept.
    """
    from segrl import loading
    from segrl.errors import quieten
    from segrl.images import as_image

    if len(formats) > 1 or not set(formats) <= set(PIPED):
        raise SegrlError(f"standard output takes one of {', '.join(PIPED)}, not {', '.join(formats)}")
    data = sys.stdin.buffer.read()
    if not data:
        raise SegrlError("there is no image on standard input")
    quieten()
    result = loading.load(**model).segment(as_image(data, style.pictures), query).surer(least[1])
    if result.status.is_failure:
        raise SegrlError(f"the answer could not be read ({result.status.value}): {result.answer.detail or result.text}")
    kept = [mask for mask in result.masks if mask.sum() >= least[0]]
    if not kept:
        typer.echo("segrl: nothing was found", err=True)
    sys.stdout.buffer.write(_file(result, kept, formats[0] if formats else "png"))
    sys.stdout.buffer.flush()


def _file(result: Result, kept: Sequence[np.ndarray], kind: str) -> bytes:
    """The picture that is written, as PNG."""
    import numpy as np

    from segrl import overlay
    from segrl.masks import png_bytes

    masks = np.stack(kept) if kept else result.masks[:0]
    union = np.asarray(masks.any(axis=0))
    if kind == "png":
        return png_bytes(union)
    drawn = overlay.cutout(result.image, union) if kind == "cutout" else overlay.draw(result.image, masks)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


def _batch_size(text: str) -> BatchSize:
    return "auto" if text == "auto" else _positive("--batch-size", text)


def _processes(text: str) -> int:
    if text != "auto":
        return _positive("--processes", text)
    from segrl.jobs.workers import gpu_count

    return max(1, gpu_count())


def _positive(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SegrlError(f"{option} takes a whole number above 0 or auto, not {text!r}")
    return int(text)
