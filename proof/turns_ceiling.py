"""How much corrections could gain in the tiny world: ideal corrections of an annotator's loose answers.

    python proof/turns_ceiling.py [--n 100] [--segmenter grabcut]

Each scene begins with the loose boxes and points of the cold start; then the points that correct the mask most are
added, turn after turn (`segrl.datasets.turns.correcting_points`). Printed is gIoU by turn, with and without the earlier
mask as the segmenter's starting point.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from segrl import datasets, segmenters
from segrl.answers import follow
from segrl.datasets.turns import correcting_points
from segrl.segmenters import Segmenter, segment
from segrl.types import ORIGINAL, Answer, Example, MaskPrompt, Segmentation, Status

TURNS = 4


def overlaps(example: Example, segmenter: Segmenter, continues: bool) -> list[float]:
    """IoU after each turn."""
    stands = _masks(segmenter, example, tuple(example.meta["prompts"]))
    found = [_iou(stands, example)]
    for _ in range(TURNS - 1):
        points = correcting_points(stands.union.cpu().numpy(), example.truth)
        if points:
            where, labels = zip(*points, strict=True)
            followed = follow(Answer(Status.OK, (MaskPrompt(None, where, labels, ORIGINAL),)), stands.answer.prompts)
            prompts = []
            for prompt, i in zip(followed.prompts, followed.goes_on_from, strict=True):
                goes_on = continues and i is not None and stands.logits is not None
                prompts.append(replace(prompt, prior_logits=stands.logits[i]) if goes_on else prompt)  # type: ignore[index]
            stands = _masks(segmenter, example, tuple(prompts))
        found.append(_iou(stands, example))
    return found


def _masks(segmenter: Segmenter, example: Example, prompts: tuple[MaskPrompt, ...]) -> Segmentation:
    return segment(segmenter, [example.image], [Answer(Status.OK, prompts)], keeps_logits=True)[0]


def _iou(stands: Segmentation, example: Example) -> float:
    mask = stands.union.cpu().numpy()
    return float((mask & example.truth).sum() / (mask | example.truth).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--segmenter", default="grabcut")
    given = parser.parse_args()
    examples = datasets.load("tiny", n=given.n, seed=77, kinds=["colour_shape", "pair"])
    segmenter = segmenters.load(given.segmenter)
    for continues in (False, True):
        rows = [overlaps(example, segmenter, continues) for example in examples]
        said = "from the earlier mask" if continues else "from nothing        "
        print(said, *(f"{value:.3f}" for value in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
