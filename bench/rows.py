"""The rows of the table: each measures one promise and says whether it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import seconds, side_by_side
from workload import Workload, group, random_prompt

from segrl import answers, scoring, segmenters

GROUP = 8


@dataclass(frozen=True)
class Row:
    """One promise. measured: the ratio (answers a second for parsing). The calls are of one repetition of ours."""

    name: str
    goal: str
    measured: float
    met: bool
    encoder_calls: int
    decoder_calls: int
    seconds: Mapping[str, float]


def one_group(work: Workload, repeats: int) -> Row:
    """A group from scratch, against one encode and the fastest bare decode."""
    image = work.photograph()
    asked, pixels = group(image, GROUP), work.pixels(image)
    features = work.bare_encode(pixels)
    chunk = fastest_chunk(work, features)

    def bare() -> None:
        work.bare_decode(work.bare_encode(pixels), GROUP, chunk)

    times = side_by_side({"ours": cold(work, image, asked), f"bare, chunks of {chunk}": bare}, repeats)
    return at_most("one group, G = 8, one box and three points each", 1.15, work, times)


def against_plain(work: Workload, repeats: int, objects: int, goal: float, name: str) -> Row:
    """A group from scratch, against one plain call for every box of every completion."""
    image = work.photograph()
    asked = group(image, GROUP, objects)
    prompts = [prompt for answer in asked for prompt in answer.prompts]
    times = side_by_side({"ours": cold(work, image, asked), "plain": lambda: work.plain(image, prompts)}, repeats)
    return at_least(name, goal, times["plain"] / times["ours"], work, times)


def warm(work: Workload, repeats: int) -> Row:
    """The same image again, other prompts: against the bare decode."""
    image = work.photograph()
    features = work.bare_encode(work.pixels(image))
    chunk = fastest_chunk(work, features)
    cold(work, image, group(image, GROUP))()
    asked = group(image, GROUP, seed=1)

    def ours() -> None:
        work.segmenter.encoder_calls = work.segmenter.decoder_calls = 0
        work.ours([image] * GROUP, asked)

    bare = {f"bare, chunks of {chunk}": lambda: work.bare_decode(features, GROUP, chunk)}
    row = at_most("the same images again, cache warm", 1.2, work, side_by_side({"ours": ours, **bare}, repeats))
    return Row(**{**vars(row), "met": row.met and row.encoder_calls == 0})


def scores(repeats: int, side: int = 840, device: str = "cpu") -> Row:
    """IoU and S-measure of a group's masks on `device`, against PySODMetrics (which knows the CPU alone)."""
    from py_sod_metrics import FmeasureV2, IOUHandler, Smeasure

    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:side, :side]
    centres, radii = rng.uniform(0.2 * side, 0.8 * side, (GROUP, 2)), rng.uniform(0.05 * side, 0.3 * side, GROUP)
    masks = np.stack([(ys - y) ** 2 + (xs - x) ** 2 < r * r for (y, x), r in zip(centres, radii, strict=True)])
    pred, gt = torch.from_numpy(masks).to(device), torch.from_numpy(masks[0]).to(device)
    grey = masks.astype(np.uint8) * 255

    def theirs() -> None:
        structure = Smeasure()
        overlap = FmeasureV2({"iou": IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True)})
        for mask in grey:
            structure.step(mask, grey[0])
            overlap.step(mask, grey[0])

    def ours() -> None:
        scoring.iou(pred, gt)
        scoring.s_measure(pred, gt)

    times = side_by_side({"ours": ours, "PySODMetrics": theirs}, repeats)
    name = f"IoU + S-measure of a group of 8 masks at {side}×{side}"
    return at_least(name, 8.0, times["PySODMetrics"] / times["ours"], None, times)


THINK = "The request asks for the smaller of two objects; the left one spans more pixels, so it is the right one. " * 3


def parsing(repeats: int, count: int = 4000) -> Row:
    """Answers read in a second of processor time, of four formats with three sentences of reasoning."""
    texts = {
        "seg-r1": f"<think>{THINK}</think> <bbox>[%d,20,130,140]</bbox>, <points>[[60,70],[90,80]]</points>, "
        "<labels>[1,0]</labels>",
        "sam-r1": f"<think>{THINK}</think> To generate the mask of the target object, "
        '<answer>{"bbox": [%d,20,130,140], "points": [[60,70,1],[90,80,0]]}</answer>',
        "points-only": "<points>[[%d,70],[90,80]]</points>, <labels>[1,0]</labels>",
        "json-list": f"<think>{THINK}</think><answer>"
        '[{"bbox_2d": [%d,20,130,140], "point_2d": [60,70]}, {"bbox_2d": [5,6,70,80], "point_2d": [9,9]}]</answer>',
    }
    work = [(text % (i % 100), name) for i in range(count // 4) for name, text in texts.items()]
    assert all(answers.parse(text, name, reading="lenient").prompts for text, name in work[:4])
    readings: tuple[answers.Reading, ...] = ("strict", "lenient")
    functions = {reading: partial(_parse_all, work, reading) for reading in readings}
    times = side_by_side(functions, repeats, time.process_time)
    return at_least("parsing, answers a second on one core", 20_000, count / max(times.values()), None, times)


def _parse_all(work: Sequence[tuple[str, str]], reading: answers.Reading) -> None:
    for text, name in work:
        answers.parse(text, name, reading=reading)


def tiny_prompts(repeats: int, image: Image.Image, count: int = 16) -> Row:
    """Milliseconds a prompt of the segmenter that ships, `count` boxes of one image in one call on one core."""
    rng = np.random.default_rng(0)
    prompts = [replace(random_prompt(rng, image.size), points_xy=(), labels=()) for _ in range(count)]
    loaded = {"ours": segmenters.load("tiny"), "GrabCut": segmenters.load("grabcut", threads=1)}
    encoded = {name: segmenter.encode([image]) for name, segmenter in loaded.items()}
    times = side_by_side(
        {name: lambda name=name: loaded[name].decode(encoded[name], [prompts]) for name in loaded}, repeats
    )
    milliseconds, goal = times["ours"] / count * 1000, 40.0
    name = f"{count} boxes of one {image.width}×{image.height} image, tiny, ms a box on one core"
    return Row(name, f"at most {goal:g}", milliseconds, milliseconds <= goal, 0, 0, times)


def cold(work: Workload, image: Any, asked: Any) -> Callable[[], None]:
    """Ours from scratch: nothing remembered."""

    def run() -> None:
        work.forget()
        work.ours([image] * len(asked), asked)

    return run


def fastest_chunk(work: Workload, features: Any) -> int:
    """How many prompts the bare decoder likes best at once."""
    chunks = (1, 2, 4, 8)
    work.bare_decode(features, 1, 1)
    return min(chunks, key=lambda chunk: min(seconds(lambda: work.bare_decode(features, GROUP, chunk)) for _ in "ab"))


def at_most(name: str, goal: float, work: Workload, times: Mapping[str, float]) -> Row:
    """A row whose ratio is ours over the other."""
    [other] = [value for key, value in times.items() if key != "ours"]
    ratio = times["ours"] / other
    return Row(name, f"at most {goal:g}", ratio, ratio <= goal, *_calls(work), times)


def at_least(name: str, goal: float, ratio: float, work: Workload | None, times: Mapping[str, float]) -> Row:
    """A row that is met from `goal` upward."""
    return Row(name, f"at least {goal:g}", ratio, ratio >= goal, *_calls(work), times)


def _calls(work: Workload | None) -> tuple[int, int]:
    return (work.segmenter.encoder_calls, work.segmenter.decoder_calls) if work else (0, 0)
