"""Answers without an image: the oracle, which knows the truth, scripts, which replay texts, and a constant box."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segrl import answers
from segrl.coordinates import convert
from segrl.datasets.gold import gold_answer, gold_prompts
from segrl.errors import DataError, ModelError, SegrlError
from segrl.masks import box_to_mask
from segrl.policies import Completion, Policy, PolicySettings, frame_rule
from segrl.policies.frames import FAMILY_RESIZE, check_family
from segrl.types import ORIGINAL, Box, Example, Frame

if TYPE_CHECKING:
    from PIL import Image

    from segrl.policies.frames import FrameRule


PolicyFor = Callable[[Sequence[Example]], Policy]
"""The policy that answers these examples: one and the same where it looks at images, made from them otherwise."""

REPLAYED = ("oracle", "scripted")
"""Names of the policies that look at no image."""


@dataclass
class Replay:
    """Answers the i-th request of a call with the i-th group of completions, in turn where more samples are wanted.

    Every option but `num_samples` is ignored. Raises ValueError unless there are as many requests as groups.
    """

    answer_format: str
    frame_rule: FrameRule
    groups: tuple[tuple[Completion, ...], ...] = ()

    def frame_for(self, image_wh: tuple[int, int]) -> Frame:
        """As `frame_rule` says."""
        return self.frame_rule(image_wh)

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 0,
        temperature: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        batch_size: int = 1,
    ) -> list[list[Completion]]:
        """See `Policy.generate`."""
        if len(prompts) != len(self.groups):
            raise ValueError(f"{len(prompts)} requests for {len(self.groups)} replayed answers")
        return [list(islice(cycle(group), num_samples)) for group in self.groups]


PROMPTS = ("targets", "example")


def oracle(answer_format: str, *, n_points: int = 2, n_negatives: int = 0, prompts: str = "targets") -> PolicyFor:
    """Ideal answers in whole original pixels: the ceiling of a segmenter on a data set.

    prompts: "targets": one box per target with `n_points` foreground and `n_negatives` background points, made from
    the masks. "example": the data set's own mask prompts and reasoning, two points per target where it has none. Both
    are written and read as any answer is; "nothing there" where there is no target. Raises SegrlError for counts
    that are none, and when its turn comes for a target without a pixel and for what the format cannot say.
    """
    if any(type(count) is not int or count < 0 for count in (n_points, n_negatives)):
        raise SegrlError(f"the oracle takes counts of points, not n_points={n_points!r}, n_negatives={n_negatives!r}")
    if prompts not in PROMPTS:
        raise SegrlError(f"the oracle takes prompts={'|'.join(PROMPTS)}, not {prompts!r}")
    written = answers.get(answer_format)

    def text(example: Example) -> str:
        if prompts == "targets":
            return written.render(gold_answer(example, n_points=n_points, n_negatives=n_negatives))
        own = [convert(prompt, ORIGINAL, example.image.size) for prompt in gold_prompts(example)]
        return written.render(own, str(example.meta.get("reasoning", "")))

    def policy_for(examples: Sequence[Example]) -> Policy:
        try:
            groups = tuple((Completion(text(example)),) for example in examples)
        except ValueError as error:
            raise SegrlError(f"the oracle cannot write its answer: {error}") from error
        return Replay(written.name, lambda image_wh: ORIGINAL, groups)

    return policy_for


class Script:
    """Somebody else's answers: a JSON Lines file with the text, or texts, for each example.

        {"id": "FudanPed00001", "text": "<think>…</think><answer>…</answer>"}
        {"id": "FudanPed00002", "texts": ["…", "…"]}

    Further keys are passed over but for `truncated`, `tokens` and `seconds`, so the records of another
    evaluation are a script too; the last two are those of all texts of a line together. Raises DataError naming
    a line that cannot be used, and an id that comes twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: dict[str, tuple[Completion, ...]] = {}
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    if line.strip():
                        self._add(line, f"{path}, line {number},")
        except OSError as error:
            raise DataError(f"cannot read the texts in {path}: {error.strerror}") from error
        self.sha256 = digest.hexdigest()

    def _add(self, line: bytes, where: str) -> None:
        try:
            row = json.loads(line)
            name, texts = str(row["id"]), row.get("samples") or row.get("texts") or [row["text"]]
            group = tuple(_completion(text, row, is_first=i == 0) for i, text in enumerate(texts))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f'{where} is no {{"id": …, "text": …}}: {error!r}') from error
        if name in self._groups:
            raise DataError(f"{where} gives a second answer to the example {name!r}")
        self._groups[name] = group

    def __call__(self, example: Example) -> tuple[Completion, ...]:
        """The answers to an example. Raises DataError if the script has none."""
        if example.id not in self._groups:
            raise DataError(f"{self.path} holds no text for the example {example.id!r}: every example needs one")
        return self._groups[example.id]


def _completion(text: Any, row: dict[str, Any], is_first: bool) -> Completion:
    """One text of a row; the first one bears the row's totals."""
    if not isinstance(text, str):
        raise TypeError(f"a text is no {type(text).__name__}")
    tokens, seconds = (int(row.get("tokens", 0)), float(row.get("seconds", 0.0))) if is_first else (0, 0.0)
    return Completion(text, bool(row.get("truncated")), tokens, seconds)


def scripted(
    script: Script,
    answer_format: str,
    *,
    frame: str | None = None,
    input_wh: tuple[int, int] | None = None,
    family: str | None = None,
) -> PolicyFor:
    """The answers of `script`, read in `answer_format`.

    frame, input_wh: what its numbers mean, as in a policy's segrl.json: `relative_1000`, `original`,
    `resized` with the size, or `smart_resize`. family: `model_type` of the model that wrote them, which
    says how `smart_resize` sizes an image, and the frame where none is given; without both it is
    `relative_1000`. Raises ModelError for anything else.
    """
    written = answers.get(answer_format)
    if family is not None:
        check_family(family)
    settings = PolicySettings(frame=frame or (None if family else "relative_1000"), input_wh=input_wh)
    resize = FAMILY_RESIZE.get(family or "")
    if settings.frame == "smart_resize" and resize is None:
        raise ModelError(
            f"how smart_resize sizes an image depends on the model: give policy.family={'|'.join(FAMILY_RESIZE)}"
        )
    rule = frame_rule(family or "", settings, resize)

    def policy_for(examples: Sequence[Example]) -> Policy:
        return Replay(written.name, rule, tuple(script(example) for example in examples))

    return policy_for


def ious_of_constant_box(examples: Sequence[Example], box: Box) -> np.ndarray:
    """`(n,)` float64: IoU of one filled box, the same in every image, with each example's truth.

    box: `(x1, y1, x2, y2)` as shares of the image's sides, 0–1. Pixels to be ignored are left out.
    """
    return np.array([_iou(box, *_truth(example)) for example in examples])


def best_constant_box(examples: Sequence[Example], *, steps: int = 20) -> Box:
    """The box (shares of the sides, corners on a lattice of `steps`) with the highest mean IoU over `examples`.

    All boxes of the lattice are tried; lattice lines are rounded to whole pixels, and pixels to be
    ignored are left out.
    """
    low, high = np.triu_indices(steps + 1, k=1)
    mean = np.mean([_lattice_ious(*_truth(example), steps, low, high) for example in examples], axis=0)
    row, column = np.unravel_index(int(mean.argmax()), mean.shape)
    x1, y1, x2, y2 = (float(place) / steps for place in (low[column], low[row], high[column], high[row]))
    return (x1, y1, x2, y2)


def _lattice_ious(
    truth: np.ndarray, ignore: np.ndarray | None, steps: int, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """IoU of every lattice box: `(K, K)`, rows `(low, high)` of y and columns `(low, high)` of x."""
    counted = np.ones_like(truth) if ignore is None else ~ignore
    inside, area = (_counts(mask, steps, low, high) for mask in (truth & counted, counted))
    union = area + (truth & counted).sum() - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _counts(mask: np.ndarray, steps: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pixels of `mask` in every lattice box, float64 `(K, K)`."""
    summed = np.pad(mask.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    ys, xs = (np.round(np.linspace(0, side, steps + 1)).astype(int) for side in mask.shape)
    table = summed[ys][:, xs]
    rows = table[high] - table[low]
    return rows[:, high] - rows[:, low]


def _truth(example: Example) -> tuple[np.ndarray, np.ndarray | None]:
    return example.truth, example.ignore


def _iou(box: Box, truth: np.ndarray, ignore: np.ndarray | None) -> float:
    height, width = truth.shape
    mask = box_to_mask((box[0] * width, box[1] * height, box[2] * width, box[3] * height), (height, width))
    if ignore is not None:
        mask, truth = mask & ~ignore, truth & ~ignore
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 0.0
