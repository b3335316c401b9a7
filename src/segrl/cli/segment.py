"""segrl segment: masks for one's own pictures."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segrl.cli.common import Base, Samples, SecondLook, Seed, Temperature, Turns, VoteRules, decoding_values

if TYPE_CHECKING:
    import numpy as np

    from segrl.exports import Style
    from segrl.folder_job import Inputs, Plan
    from segrl.pipeline import BatchSize
    from segrl.result import Result

FORMATS = "coco, yolo, rle, png, cutout, labelme, label-studio"

PIPE = "-"
"""In place of pictures: one from standard input, its mask to standard output."""

PIPED = ("png", "cutout", "overlay")
"""What a single picture can be written as, all of them PNG."""


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTOS...",
        help="Images, folders, patterns, or CSV/JSONL with image and query; - is one image on standard input; "
        ".parquet, WebDataset's .tar or hub:NAME@SPLIT: answers in shards.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where masks go; a run there is gone on with. Needed but for -.")
]
Queries = Annotated[
    list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="What to find; may be given again.")
]
Formats = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="F,F…", help=f"One or several of {FORMATS} [default: coco,png]."),
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Also pictures with what was found drawn over them.")]
PolicyName = Annotated[str, typer.Option(metavar="P", help="tiny, a directory, or a model's name on the hub.")]
SegmenterName = Annotated[
    str | None, typer.Option(metavar="S", help="grabcut, tiny or a SAM model [default: fits the policy].")
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Masks of the boxes or points in COCO's .json, YOLO's data.yaml or a .jsonl; no policy is asked.",
    ),
]
AnswerFormat = Annotated[str | None, typer.Option(metavar="A", help="Default: the policy's own.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Read answers to the letter, as training pays for them; nothing is repaired.")
]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Longest answer [default: fits the policy].")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")]
MinArea = Annotated[int, typer.Option(min=0, metavar="N", help="Leave out objects of fewer pixels than that.")]
MinConfidence = Annotated[
    float, typer.Option(min=0, max=1, metavar="C", help="Leave out objects that are less sure (agreement or score).")
]
ByDoubt = Annotated[bool, typer.Option("--by-doubt", help="The least sure images first in the exports.")]
Review = Annotated[
    int, typer.Option(min=0, metavar="N", help="Also write the N most doubtful images to DIR/review for an annotator.")
]
ExactPolygons = Annotated[
    bool, typer.Option("--exact-polygons", help="Every corner in LabelMe and Label Studio, not polygons to be edited.")
]
Page = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Which page or frame of files that have several [default: 0].")
]
MaxMegapixels = Annotated[float, typer.Option(min=0, metavar="M", help="Larger pictures are not read.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="First remove pictures that are gone and queries that are not asked here.")
]
BatchSizeText = Annotated[str, typer.Option(metavar="N|auto", help="Queries answered together.")]
ProcessCount = Annotated[
    str, typer.Option(metavar="N|auto", help="Processes that share the work; auto: one for each GPU.")
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="On a Ray cluster, answers in shards: auto, HOST:PORT, or local."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, … [default: the first GPU, or the CPU].")]


def segment(
    photos: Photos,
    out: Out = None,
    query: Queries = None,
    formats: Formats = None,
    overlay: Overlay = False,
    policy: PolicyName = "tiny",
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
    """Find what a sentence says in pictures and write masks. The same command goes on after an interruption.

    Exit status: 0 all images were used, 1 some could not be (they are named at the end), 2 nothing was done.
    """
    from segrl.folder_job import Plan, fingerprint, is_sharded

    drawn = decoding_values(samples, temperature, seed, second_look, vote, turns)
    model = _fitted(prompts is None, segmenter, {
        "policy": policy, "answer_format": answer_format, "max_new_tokens": max_new_tokens, "base": base,
        "reading": "strict" if strict else "lenient", "decoding": drawn,
    })  # fmt: skip
    style = _style(exact_polygons, page, max_megapixels)
    chosen = [name.strip() for name in (formats or "").split(",") if name.strip()] + ["overlay"] * overlay
    if PIPE in photos:
        _check_pipe(photos, query or [], {"--out": out, "--prompts": prompts, "--limit": limit})
        return _pipe((query or [""])[0], chosen, {**model, "device": device}, (min_area, min_confidence), style)
    place, in_shards = _place(out), ray is not None or any(map(is_sharded, photos))
    inputs = None if in_shards else _inputs(photos, query or [], place, limit, prompts)
    plan = Plan(
        place, tuple(chosen if formats else ["coco", "png", *chosen]), {**model, "device": device},
        _batch_size(batch_size), tuple(query or ()), style, min_area, None if prompts is None else fingerprint(prompts),
        min_confidence, by_doubt, review,
    )  # fmt: skip
    if inputs is not None:
        return _segment(inputs, plan, model, _processes(processes), prune)
    _check_shards({"--format": formats, "--prompts": prompts, "--prune": prune, "--overlay": overlay})
    _segment_shards(photos, plan, limit, _processes(processes), ray)


def _style(exact_polygons: bool, page: int | None, max_megapixels: float) -> Style:
    from segrl.exports import Style
    from segrl.images import PictureOptions

    return Style(exact_polygons, PictureOptions(page=page, max_megapixels=max_megapixels))


def _fitted(asks: bool, segmenter: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `loading.load` as a folder keeps them: those that were given and mean something."""
    from segrl.loading import fitting_segmenter

    if not asks:
        return {"segmenter": segmenter or "tiny"}
    fitting = segmenter or fitting_segmenter(given["policy"], given["answer_format"])
    left_out = {name for name in ("base", "decoding") if not given[name]}
    return {"segmenter": fitting} | {name: value for name, value in given.items() if name not in left_out}


def _place(out: Path | None) -> Path:
    if out is None:
        raise _wrong("say where masks go: --out DIR")
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
            raise _wrong(f"{option} does not go with shards, which are parquet files with all of an answer")


def _segment_shards(photos: Sequence[str], plan: Plan, limit: int | None, processes: int, ray: str | None) -> None:
    """Of parquet files, WebDataset's and the hub's, and on a cluster of pictures, too."""
    if plan.by_doubt or plan.review:
        raise _wrong("--by-doubt and --review do not go with shards, which are parquet files with all of an answer")
    import dataclasses

    from segrl.cli.segment_view import View
    from segrl.folder_job import find_shards, segment_shards
    from segrl.jobs.cluster import executor

    if not plan.queries:
        raise _wrong("say what to find: --query")
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
        raise _wrong("--prompts says what is marked: give it without --query")
    return with_prompts(find_jobs(photos, [], leave_out=out, limit=limit, needs_query=False), prompts)


def _check_pipe(photos: Sequence[str], queries: Sequence[str], others: dict[str, Any]) -> None:
    if len(photos) > 1 or len(queries) != 1 or not queries[0].strip():
        raise _wrong("- is one picture, with one --query")
    for option, value in others.items():
        if value is not None:
            raise _wrong(f"{option} does not go with -: the result goes to standard output")


def _pipe(
    query: str,
    formats: Sequence[str],
    model: Mapping[str, Any],
    least: tuple[int, float],
    style: Style,
) -> None:
    """Reads the picture, asks about it, writes one file. An answer that cannot be read ends with status 1.

    least: area and confidence of what is kept.
    """
    from segrl import loading
    from segrl.errors import SegrlError, quieten
    from segrl.images import as_image

    if len(formats) > 1 or not set(formats) <= set(PIPED):
        raise SegrlError(f"to standard output goes one of {', '.join(PIPED)}, not {', '.join(formats)}")
    data = sys.stdin.buffer.read()
    if not data:
        raise SegrlError("there is no picture on standard input")
    quieten()
    result = loading.load(**model).segment(as_image(data, style.pictures), query)
    if result.status.is_failure:
        raise SegrlError(f"the answer could not be read ({result.status.value}): {result.answer.detail or result.text}")
    sure = [1.0] * len(result.masks) if result.confidence is None else result.confidence.tolist()
    pairs = zip(result.masks, sure, strict=True)
    kept = [mask for mask, confidence in pairs if mask.sum() >= least[0] and confidence >= least[1]]
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


def _wrong(message: str) -> Exception:
    from segrl.errors import SegrlError

    return SegrlError(message)


def _batch_size(text: str) -> BatchSize:
    return "auto" if text == "auto" else _positive("--batch-size", text)


def _processes(text: str) -> int:
    if text != "auto":
        return _positive("--processes", text)
    from segrl.jobs.workers import gpu_count

    return max(1, gpu_count())


def _positive(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise _wrong(f"{option} is a number above 0, or auto, not {text!r}")
    return int(text)
