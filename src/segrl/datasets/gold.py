"""Mask prompts made from the ground truth, for cold starts, ceilings and checks of a data set; and written down.

`write_prompts` writes JSON lines that the `jsonl` reader reads back:

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

import numpy as np

from segrl.answers import own_points
from segrl.datasets.rows import Distinct
from segrl.errors import DataError
from segrl.files import json_line, make_directory, write_atomically, write_image
from segrl.masks import box_to_mask, mask_to_box, to_rle
from segrl.types import ORIGINAL, Answer, Example, MaskPrompt, Point, Status

if TYPE_CHECKING:
    from segrl.segmenters import Segmenter


MIN_NEGATIVE_CLEARANCE_PX = 2.0
"""A negative point is given only where it stands at least this far from the object and the box's edge."""


def gold_prompt(
    mask: np.ndarray, *, n_points: int = 2, n_negatives: int = 0, negatives_near: np.ndarray | None = None
) -> MaskPrompt:
    """The mask prompt that describes a `(H, W)` bool mask, in original pixels.

    The tight box; up to `n_points` foreground points, pixels of the object however thin or
    ring-shaped it is, the first as deep inside as possible, the next far from the edge and from
    the ones before; up to `n_negatives` background points inside the box, off the object, as far
    as possible from the object and the box's edge, left out where that is less than
    MIN_NEGATIVE_CLEARANCE_PX. With `negatives_near` ((H, W) bool, for instance the other objects)
    they stand on those pixels where any lie in the box. An object of fewer pixels than points gets
    fewer points. The same mask always gives the same prompt. Raises ValueError for an empty mask.
    """
    box = mask_to_box(mask)
    if box is None:
        raise ValueError("an empty mask has no mask prompt")
    points = spread_points(mask, n_points)
    negatives = _negative_points(mask, box_to_mask(box, mask.shape[:2]), n_negatives, negatives_near)
    labels = (1,) * len(points) + (0,) * len(negatives)
    return MaskPrompt(box, (*points, *negatives), labels, ORIGINAL)


def gold_answer(example: Example, *, n_points: int = 2, n_negatives: int = 0) -> tuple[MaskPrompt, ...]:
    """One mask prompt per target of an example, in original pixels, from left to right; () without a target.

    Negative points prefer the example's other targets; a point that an answer's reader would give to another
    target, in whose smaller box it stands, is left out. Raises DataError for a target without a pixel.
    """
    prompts = []
    for index, mask in enumerate(example.targets):
        if not mask.any():
            raise DataError(f"target {index} of {example.id} has no pixel")
        others = example.truth & ~mask
        prompts.append(gold_prompt(mask, n_points=n_points, n_negatives=n_negatives, negatives_near=others))
    return own_points(sorted(prompts, key=_left_to_right))


def gold_prompts(example: Example) -> Sequence[MaskPrompt]:
    """What an example itself says is the right answer (`meta["prompts"]`, in any known frame), else `gold_answer`."""
    return example.meta["prompts"] if "prompts" in example.meta else gold_answer(example)


def _left_to_right(prompt: MaskPrompt) -> tuple[float, ...]:
    x1, y1, x2, y2 = prompt.box_xyxy or (0.0,) * 4
    return (x1 + x2, y1 + y2, x1, y1)


def spread_points(region: np.ndarray, count: int, min_clearance_px: float = 0.0) -> tuple[Point, ...]:
    """Up to `count` different pixels `(x, y)` of a `(H, W)` bool region, deep inside and far apart.

    The first is the pixel farthest from the region's edge (the image's edge counts; the nearest to
    the centroid among equals); each next one maximises (distance to the edge) × (distance to the
    nearest point so far). Pixels nearer to the edge than `min_clearance_px` are not taken.
    """
    depth = _depth(region)
    ys, xs = np.nonzero(depth >= max(min_clearance_px, 0.5))
    if len(ys) == 0 or count < 1:
        return ()
    inside = depth[ys, xs]
    deepest = np.flatnonzero(inside == inside.max())
    off_centre = np.hypot(xs[deepest] - xs.mean(), ys[deepest] - ys.mean())
    chosen = [int(deepest[off_centre.argmin()])]
    while len(chosen) < min(count, len(ys)):
        gaps = [np.hypot(xs - xs[i], ys - ys[i]) for i in chosen]
        chosen.append(int((inside * np.minimum.reduce(gaps)).argmax()))
    return tuple((float(xs[i]), float(ys[i])) for i in chosen)


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance in pixels of each pixel of a region to the nearest pixel outside it; 0 outside."""
    from scipy.ndimage import distance_transform_edt

    depth = np.zeros(region.shape)
    if (box := mask_to_box(region)) is not None:
        x1, y1, x2, y2 = map(int, box)  # nothing lies outside it, so the rest need not be looked at
        depth[y1:y2, x1:x2] = distance_transform_edt(np.pad(region[y1:y2, x1:x2], 1))[1:-1, 1:-1]
    return depth


def _negative_points(mask: np.ndarray, in_box: np.ndarray, count: int, near: np.ndarray | None) -> tuple[Point, ...]:
    free = in_box & ~mask
    if near is not None and (free & near).any():
        on_others = spread_points(free & near, count, MIN_NEGATIVE_CLEARANCE_PX)
        if on_others:
            return on_others
    return spread_points(free, count, MIN_NEGATIVE_CLEARANCE_PX)


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
