"""The page of `proof/photographs.py` and the card of the weights: every number is read from the records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from page import gain, gain_text, table
from PIL import Image, ImageDraw

from segrl import datasets, overlay
from segrl.evaluation import EvalRecord
from segrl.files import make_directory, write_atomically
from segrl.masks import from_rle
from segrl.training.checkpoints import RunDir

if TYPE_CHECKING:
    from photographs import Photographs

HELD_OUT = "held out"
"""The pictures of DUTS-TR that choices are made on, as `Photographs.sets` calls them."""
BEGIN, END = "<!-- written by proof/photographs.py -->", "<!-- end of what proof/photographs.py writes -->"
SHOW = ("<!-- photographs -->", "<!-- end of photographs -->")
SHOWN = "photographs.jpg"
METRICS = {"s_measure": "S", "e_mean": "mean E", "weighted_f": "weighted F", "mae": "MAE", "giou": "IoU"}
PUBLISHED = {"seg-r1-7b-sod": "Seg-R1, 7B", "seg-r1-3b-sod": "Seg-R1, 3B"}
"""Rows of docs/results.yaml that stand on the page for scale."""
PUBLISHED_NOTE = (
    "The published rows are the paper's own figures, of models of billions of parameters with SAM 2 on the whole set; "
    "they are here for scale. The paper does not say which E it means."
)
TITLES = {
    "whole": "the whole image as the box, for every picture",
    "constant": "the best constant answer",
    "cold_start": "cold start",
    "more_sft": "cold start + more SFT, as many minutes as RL",
    "shuffled": "cold start + RL, rewards shuffled in each group",
    "vote": "RL (the seed best on held-out pictures), a vote of 8 samples, consensus masks",
    "grabcut": "RL (the seed best on held-out pictures), GrabCut in the segmenter's place",
    "gold": "gold mask prompts: the ceiling",
}
BEATEN = ("cold_start", "more_sft", "constant")
"""Arms that every seed of reinforcement learning is to be above, in S and IoU, on every set."""
LEAST_S = {"ECSSD": 0.82}
"""S-measure that was aimed at."""
COMPARED = {"s_measure": "S", "iou": "IoU"}
"""Numbers of a record that differences are taken of."""
ACROSS, TILE = 5, 200
FIRST, WORST = 20, 5


def write_page(work: Photographs, page: Path) -> None:
    """Puts what was measured between the page's markers, and pictures into the work's folder `pictures`."""
    fill(page, "\n\n".join(_parts(work)), BEGIN, END)


def fill(page: Path, content: str, begin: str, end: str) -> None:
    """Puts `content` between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not between.search(text):
        raise SystemExit(f"{page} lacks the markers {begin} and {end}")
    write_atomically(page, between.sub(lambda _: f"{begin}\n{content}\n{end}", text))


def show_photographs(page: Path) -> None:
    """The demo's photographs as the shipped policy answers them, as they come out: a picture beside the page."""
    import segrl
    from segrl.web.demo.app import PHOTOGRAPHS, photograph

    model = segrl.load("tiny-photos")
    results = [model.segment(photograph(name), "the main object") for name in PHOTOGRAPHS]
    drawn = [result.overlay() for result in results]
    sheet = Image.new(
        "RGB", (sum(one.width for one in drawn) + 8 * (len(drawn) - 1), max(one.height for one in drawn)), "white"
    )
    left = 0
    for one in drawn:
        sheet.paste(one, (left, 0))
        left += one.width + 8
    make_directory(page.parent / "images")
    sheet.save(page.parent / "images" / SHOWN, quality=88)
    whose = "; ".join(f"{name} ({terms})" for name, terms in PHOTOGRAPHS.items())
    shown = f"![What tiny-photos answers](images/{SHOWN})\n\n*The first answer to each. Photographs: {whose}.*"
    fill(page, f'## Photographs that scikit-image ships, asked for "the main object"\n\n{shown}', *SHOW)


def _parts(work: Photographs) -> Iterator[str]:
    yield _made(work)
    for name in work.sets:
        if name != HELD_OUT:
            yield from _of_set(work, name)
    yield "## What was aimed at\n\n" + _aims(work)
    yield "## What the choices were made on\n\n" + _choices(work)


def _made(work: Photographs) -> str:
    """What was trained for how long, and on what, as the runs wrote it down."""
    finished = [arm for arm in work.trained if RunDir(work.out / arm).finished.exists()]
    start = json.loads((work.out / finished[0] / "run.json").read_text(encoding="utf-8"))["starts"][-1]
    versions = ", ".join(f"{name} {start['versions'][name]}" for name in ("segrl", "torch", "transformers", "trl"))
    eyes = json.loads((work.out / "eyes" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return (
        f"Trained in {start['compute_type']} on {start['device']}; {versions}.\n"
        f"The eyes: {eyes['samples']:,} samples (`--eyes-samples`); their dense masks have IoU {eyes['iou']:.3f} on "
        f"held-out pictures of DUTS-TR and {eyes['train_iou']:.3f} on those they were trained on, the boxes of these "
        f"masks {eyes['box_iou']:.3f} and {eyes['train_box_iou']:.3f}.\n"
        f"Then: {'; '.join(_trained(work, arm) for arm in finished)}."
    )


def _trained(work: Photographs, arm: str) -> str:
    done = json.loads(RunDir(work.out / arm).finished.read_text(encoding="utf-8"))
    kept = work.model(arm).name.removeprefix("checkpoint-")
    return f"{arm} {done['last_step']} steps, {done['seconds'] / 60:.0f} min (kept: {kept})"


def _of_set(work: Photographs, name: str) -> Iterator[str]:
    count = len(work.records(name, "gold"))
    yield f"## {name}: {count} pictures\n\n" + table(["answers", *METRICS.values(), "box IoU"], _rows(work, name))
    if any(_published(name)):
        yield PUBLISHED_NOTE
    yield "RL (or its vote) minus each of the others, paired by picture, with 95% intervals:\n\n" + table(
        ["RL minus", "seed", *COMPARED.values()], _differences(work, name)
    )
    yield _pictures(work, name)


def _rows(work: Photographs, name: str) -> Iterator[list[str]]:
    for arm in work.arms:
        yield [_title(arm), *_cells(work, name, arm), f"{box_iou(work.records(name, arm)):.3f}"]
    yield from _published(name)


def box_iou(records: Sequence[EvalRecord]) -> float:
    """Mean IoU of the answers' boxes with the truth's: how well is pointed, whatever the segmenter makes of it."""
    return float(np.mean([record.measures["box_iou"] for record in records]))


def _title(arm: str) -> str:
    return TITLES.get(arm) or f"cold start + RL, seed {arm.removeprefix('rl-')}"


def _cells(work: Photographs, name: str, arm: str, metrics: Iterable[str] = METRICS) -> list[str]:
    """Values with their intervals."""
    found = work.metrics(name, arm)
    ends = [found[metric]["ci95"] or (found[metric]["value"],) * 2 for metric in metrics]
    return [
        f"{found[metric]['value']:.3f} [{low:.3f}, {high:.3f}]"
        for metric, (low, high) in zip(metrics, ends, strict=True)
    ]


def _published(name: str) -> Iterator[list[str]]:
    """What the papers report, with models a thousand times as large and SAM 2, on the whole set."""
    tables = yaml.safe_load((Path(__file__).parents[1] / "docs" / "results.yaml").read_text(encoding="utf-8"))["tables"]
    for one in tables:
        for row in one["rows"]:
            if one["key"] in PUBLISHED and row["name"] == name:
                numbers = dict(zip(one["metrics"], row["published"], strict=False))
                cells = [f"{numbers[metric]:.3f}" if numbers.get(metric) else "" for metric in METRICS]
                yield [f"*as published: {PUBLISHED[one['key']]}, SAM 2, the whole set*", *cells, ""]


def _differences(work: Photographs, name: str) -> Iterator[list[str]]:
    for other in ("cold_start", "more_sft", "constant", "whole", "shuffled"):
        for arm in [*work.reinforced, "vote"]:
            gains = [gain_text(*_pair(work, name, other, arm, number)) for number in COMPARED]
            yield [_title(other), arm.removeprefix("rl-"), *gains]


def _pair(work: Photographs, name: str, other: str, arm: str, number: str) -> tuple[np.ndarray, np.ndarray]:
    """A number of the same pictures under two arms. Raises ValueError if the pictures are not the same."""
    pairs = zip(work.records(name, other), work.records(name, arm), strict=True)
    rows = [(one.id == two.id, getattr(one, number), getattr(two, number)) for one, two in pairs]
    if not all(same for same, _, _ in rows):
        raise ValueError(f"{other} and {arm} were not measured on the same pictures of {name}")
    return np.array([before for _, before, _ in rows]), np.array([after for _, _, after in rows])


def _aims(work: Photographs) -> str:
    """Whether each seed reached what was aimed at."""
    rows = []
    for name in work.sets:
        if name != HELD_OUT:
            for other in BEATEN:
                found = [_above(work, name, other, arm) for arm in work.reinforced]
                rows.append([f"{name}: above {_title(other)}", *found])
    for name, least in LEAST_S.items():
        if name in work.sets:
            values = [float(work.metrics(name, arm)["s_measure"]["value"]) for arm in work.reinforced]
            found = [f"{'yes' if value >= least else 'no'} ({value:.3f})" for value in values]
            rows.append([f"{name}: S at least {least}", *found])
    seeds = [f"seed {arm.removeprefix('rl-')}" for arm in work.reinforced]
    return (
        "Above: the interval of the difference lies above 0, in both S and IoU (else the one that does).\n\n"
        + table(["RL", *seeds], rows)
    )


def _above(work: Photographs, name: str, other: str, arm: str) -> str:
    above = [title for number, title in COMPARED.items() if gain(*_pair(work, name, other, arm, number))[1] > 0]
    return "yes" if len(above) == len(COMPARED) else f"{above[0]} only" if above else "no"


def _pictures(work: Photographs, name: str) -> str:
    """Writes sheets of the first pictures by name and of the worst; says what is on them."""
    arm = work.best_seed
    records = work.records(name, arm)
    first = sorted(records, key=lambda record: record.id)[:FIRST]
    worst = sorted(records, key=lambda record: (record.iou, record.id))[:WORST]
    for which, chosen in (("first", first), ("worst", worst)):
        _sheet(work, name, chosen, work.out / "pictures" / f"{name}-{which}.jpg")
    told = [", ".join(f"{record.id} {record.iou:.2f}" for record in chosen) for chosen in (first, worst)]
    return (
        f"IoU of the first {len(first)} pictures by name (RL, seed {arm.removeprefix('rl-')}): {told[0]}. "
        f"The {len(worst)} worst: {told[1]}. Sheets with these pictures and what was answered: "
        f"`pictures/{name}-first.jpg` and `-worst.jpg` in the run's folder; the set's terms keep them out of this page."
    )


def _sheet(work: Photographs, name: str, records: Sequence[EvalRecord], path: Path) -> None:
    """Tiles with the answer drawn in and its IoU written on, each above a tile with the truth."""
    dataset, options = work.sets[name]
    wanted = {record.id for record in records}
    images = {one.id: one.image for one in datasets.load(dataset, **options) if one.id in wanted}
    rows = -(-len(records) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * TILE, rows * 2 * TILE), "white")
    for i, record in enumerate(records):
        y, x = divmod(i, ACROSS)
        image = images[record.id]
        answered = overlay.draw(image, from_rle(record.mask)[None], record.prompts[:1])
        for below, drawn in enumerate((answered, overlay.draw(image, from_rle(record.truth)[None]))):
            drawn.thumbnail((TILE - 4, TILE - 16))
            sheet.paste(drawn, (x * TILE + 2, (2 * y + below) * TILE + 14))
        pen = ImageDraw.Draw(sheet)
        pen.text((x * TILE + 2, 2 * y * TILE + 1), f"{record.id} {record.iou:.2f}"[:32], fill="black")
        pen.text((x * TILE + 2, (2 * y + 1) * TILE + 1), "truth", fill="black")
    make_directory(path.parent)
    sheet.save(path, quality=88)


def _choices(work: Photographs) -> str:
    constant = json.loads((work.out / "constant.json").read_text(encoding="utf-8"))
    rows = [[_title(arm), *_cells(work, HELD_OUT, arm, ["giou"])] for arm in [*work.trained, "vote"]]
    return (
        "Every 20th picture of DUTS-TR by name, never trained on: of each training the checkpoint with the best IoU on "
        f"some of them is measured, and seed {work.best_seed.removeprefix('rl-')} is what ships. All of them:\n\n"
        + table(["answers", "IoU"], rows)
        + f"\n\nThe constant answer, the best of {len(constant['tried'])}: `{constant['text']}`."
    )


def card(work: Photographs, remark: str) -> str:
    """The card of the weights."""
    from segrl.tiny import PHOTOS

    size = (PHOTOS / "model.safetensors").stat().st_size / 1e6
    names = [name for name in ("DUTS-TE", "ECSSD") if work.evaluation(name, work.best_seed).metrics.exists()]
    rows = [[name, *_cells(work, name, work.best_seed)] for name in names]
    return f"""# tiny-photos

A vision-language policy of FastVLM's architecture with a ResNet as its image encoder, made from nothing;
{size:.1f} MB in half precision. It answers one query, "all the primary objects", with a box and points of whatever
stands out in a photograph, in Seg-R1's format, pixels of a squash to 192 × 192; the tiny segmenter cuts out the mask.

{_made(work)}

Made by `python proof/photographs.py run` and `ship`; what it is compared with: `docs/photographs.md`. {remark}

## Data and its terms

DUTS-TR: 10,553 photographs with the mask of what stands out, scaled to a longer side of 224 pixels (Wang, Lu, Wang,
Feng, Wang, Yin, Ruan: Learning to Detect Salient Objects with Image-level Supervision, CVPR 2017). The photographs are
ImageNet DET's and SUN's; copyright stays with their authors, and they are offered for research. No picture or mask is
in this package. Whoever needs weights without that history trains on pictures of their own with the same command.

## Figures

Through the tiny segmenter, greedy, with 95% intervals over pictures; measured before the weights were rounded to half
precision:

{table(["set", *METRICS.values()], rows)}

## Limits

It knows photographs with something that stands out, and no words: any query but that one is refused. One box for all
objects together; thin parts are lost; drawings, text, crowds, medical and aerial pictures were not taught.
"""
