"""Gold mask prompts for a cold start, written as JSON lines that the `jsonl` reader reads back.

OUT/data.jsonl     {"id": "…", "image": "images/3f….png", "query": "the cup", "masks": [{…}],
                    "prompts": [{"box_xyxy": […], "points_xy": […], "labels": […]}]}
OUT/images/        each image once, as PNG
OUT/prompts.json   what they were made from (data set, options, sample), and how many there are
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segrl.datasets.gold import gold_answer
from segrl.datasets.rows import Distinct
from segrl.errors import DataError
from segrl.files import json_line, make_directory, write_atomically, write_image
from segrl.masks import to_rle
from segrl.types import Answer, Example, MaskPrompt, Status

if TYPE_CHECKING:
    from segrl.segmenters import Segmenter

DATA, IMAGES, ABOUT = "data.jsonl", "images", "prompts.json"


@dataclass
class Written:
    """Counts of what was written. mean_iou: of the prompts' masks through the segmenter, where one was given and
    a target is there."""

    examples: int = 0
    images: int = 0
    prompts: int = 0
    without_target: int = 0
    foreground_points: int = 0
    background_points: int = 0
    mean_iou: float | None = None


def write_prompts(
    examples: Sequence[Example],
    out: Path,
    *,
    n_points: int = 2,
    n_negatives: int = 1,
    segmenter: Segmenter | None = None,
    about: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Writes the gold mask prompts of all examples under `out`; the same examples give the same files.

    n_points, n_negatives: see `gold_prompt`. An example's own `meta["prompts"]` are kept as they are.
    segmenter: negative points stay only in examples whose masks they make better; without it they
    stay wherever there is room for a useful one. about: what to note in prompts.json. on_progress:
    called with the examples done and their number. Raises DataError for an `out` that holds data
    already and for a target without a pixel, SegrlError for an `out` that cannot be written.
    """
    if (out / DATA).exists():
        raise DataError(f"{out / DATA} is there already: choose another --out")
    make_directory(out / IMAGES)
    counts, ious = Written(), list[float]()

    def lines() -> Iterator[str]:
        name = Distinct()
        for done, example in enumerate(examples, 1):
            prompts, iou = _prompts(example, n_points, n_negatives, segmenter)
            ious.extend([] if iou is None else [iou])
            yield json_line(_row(name(example.id), example, prompts, _save_image(example, out, counts)))
            _count(counts, prompts)
            if on_progress is not None:
                on_progress(done, len(examples))

    write_atomically(out / DATA, lines())
    counts.mean_iou = sum(ious) / len(ious) if ious else None
    noted = {**(about or {}), "n_points": n_points, "n_negatives": n_negatives, "written": asdict(counts)}
    write_atomically(out / ABOUT, json.dumps(noted, indent=1, ensure_ascii=False) + "\n")
    return counts


def _prompts(
    example: Example, n_points: int, n_negatives: int, segmenter: Segmenter | None
) -> tuple[tuple[MaskPrompt, ...], float | None]:
    """The prompts of an example, and the IoU of their masks through the segmenter."""
    if "prompts" in example.meta:
        candidates = [tuple(example.meta["prompts"])]
    else:
        counts = dict.fromkeys((0, n_negatives))
        candidates = [gold_answer(example, n_points=n_points, n_negatives=count) for count in counts]
    if segmenter is None or not example.truth.any() or not all(candidates):
        return candidates[-1], None
    ious = _ious(example, candidates, segmenter)
    best = max(range(len(candidates)), key=lambda i: (ious[i], -i))  # equally good: without negative points
    return candidates[best], ious[best]


def _ious(example: Example, candidates: Sequence[tuple[MaskPrompt, ...]], segmenter: Segmenter) -> list[float]:
    from segrl.scoring import score
    from segrl.segmenters import segment

    n = len(candidates)
    answers = [Answer(Status.OK, prompts) for prompts in candidates]
    masks = segment(segmenter, [example.image] * n, answers, image_ids=[example.image_id] * n)
    return [one.iou for one in score(masks, [example.truth] * n, [example.ignore] * n)]


def _save_image(example: Example, out: Path, counts: Written) -> str:
    """The image's file under `out`, written if it is not there."""
    name = f"{IMAGES}/{example.image_id}.png"
    if not (out / name).exists():
        write_image(out / name, example.image)
        counts.images += 1
    return name


def _row(name: str, example: Example, prompts: Sequence[MaskPrompt], image: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name, "image": image, "query": example.query}
    row["masks"] = [to_rle(mask) for mask in example.targets]
    row["prompts"] = [prompt.to_json() for prompt in prompts]
    if example.ignore is not None:
        row["ignore"] = to_rle(example.ignore)
    tags = dict(example.tags) | ({"truth": str(example.meta["truth"])} if "truth" in example.meta else {})
    given = {"tags": tags, "reasoning": example.meta.get("reasoning"), "answer": example.meta.get("completion_text")}
    return row | {key: value for key, value in given.items() if value}


def _count(counts: Written, prompts: Sequence[MaskPrompt]) -> None:
    labels = [label for prompt in prompts for label in prompt.labels]
    counts.examples += 1
    counts.prompts += len(prompts)
    counts.without_target += not prompts
    counts.foreground_points += sum(labels)
    counts.background_points += len(labels) - sum(labels)
