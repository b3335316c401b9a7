"""Sets for a cold start, whose truth is gold mask prompts, not masks: FCoT, and Seg-Zero's and VisionReasoner's sets.

A row of `geshang/FCoT`, which Seg-R1's authors give away (its columns are those of the data set's card; the values an
illustration), with images, reasoning and mask prompts:

    {"image": <picture>, "problem": "Identify and segment all the primary objects in the image.",
     "thinking": "<think>…</think>",
     "solution": "<bbox>[x1,y1,x2,y2]</bbox>, <points>[[x1,y1],…]</points>, <labels>[1,0,…]</labels>"}

Think tags around the thinking are taken off. Not verified, for want of the files: that the numbers are pixels of the
stored picture; if they are about another size, `numbers_wh` says which. A row that cannot be read is an error unless
`drop_unreadable` is set.

Rows of `Ricky06662/refCOCOg_9k_840` and of `Ricky06662/VisionReasoner_multi_object_7k_840` (columns as in
the data sets' cards and Seg-Zero's gen_training_dataset.py; the values an illustration):

    {"id": "refcocog_1719310", "problem": "the lady with the blue shirt", "image": <840×840>,
     "solution": "<box>(130,79),(391,778)</box><points>(262,300),(240,512)</points>",
     "img_height": 427, "img_width": 640}
    {…, "problem": "'man in blue' and 'left dog'",
     "solution": "[{\\"bbox_2d\\": [130, 79, 391, 778], \\"point_2d\\": [262, 300]}, …]"}

Their pictures are stored squashed to 840×840, the size in which those policies see them; `restore: true` gives them
their proportions back (`img_width`, `img_height`). A box's maximum is the last pixel in the authors' script, so one
original pixel is added to make it exclusive. All their points lie on the object.

As an example: the problem as the query, `meta["prompts"]` (original pixels) and FCoT's `meta["reasoning"]` for SFT,
and the filled boxes as targets, since the sets hold no masks. Nothing else is filtered out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segrl import answers
from segrl.coordinates import to_original
from segrl.datasets.drawing import stack
from segrl.datasets.hugging_face import TableRows
from segrl.errors import DataError
from segrl.images import content_id
from segrl.masks import box_to_mask
from segrl.types import ORIGINAL, Answer, Box, Example, Frame, MaskPrompt, Point, Status


def prompted_example(
    id: str,
    image: Image.Image,
    query: str,
    prompts: Sequence[MaskPrompt],
    where: str,
    meta: Mapping[str, Any] | None = None,
) -> Example:
    """The example of an image and its gold mask prompts, whose frame says what their numbers are.

    `meta["prompts"]` holds them in original pixels. The targets are the filled boxes and `meta["truth"]`
    is "box": box accuracy is what such data can measure, and an IoU says how well a mask fills the box.
    Raises DataError naming `where` for a box that holds no pixel of the image, and a prompt without a box.
    """
    answer = Answer(Status.OK, tuple(prompts)) if prompts else Answer(Status.NO_TARGET)
    found = to_original(answer, image.size)
    boxes = [prompt.box_xyxy for prompt in found.prompts]
    if found.status.is_failure or None in boxes:
        raise DataError(
            f"{where}: {found.detail or 'a mask prompt without a box'}; are its numbers about another size?"
        )
    hw = (image.height, image.width)
    return Example(
        id=id,
        image_id=content_id(image),
        image=image,
        query=query,
        targets=stack([box_to_mask(box, hw) for box in boxes if box is not None], hw),
        meta={**(meta or {}), "prompts": found.prompts, "boxes_xyxy": tuple(boxes), "truth": "box"},
    )


HUB_NAME = "geshang/FCoT"


class FCoT(TableRows):
    """root, split, revision: see TableRows; the default is the data set on the hub.

    numbers_wh: the (width, height) that the numbers are about, by default that of each picture.
    drop_unreadable: leave out rows whose solution is no answer; `dropped` holds their places.
    """

    def __init__(
        self,
        root: Path | str = HUB_NAME,
        *,
        split: str = "train",
        revision: str | None = None,
        numbers_wh: tuple[int, int] | None = None,
        drop_unreadable: bool = False,
    ) -> None:
        columns = ("image", "thinking", "problem", "solution")
        super().__init__(root, split=split, columns=columns, revision=revision)
        self._frame = ORIGINAL if numbers_wh is None else Frame.resized(*numbers_wh)
        solutions = list(self.table["solution"])
        read = {place: answers.parse(str(solutions[place]), "seg-r1", frame=self._frame) for place in self._places}
        self.dropped = [place for place, answer in read.items() if answer.status is not Status.OK]
        if self.dropped and not drop_unreadable:
            first = self.dropped[0]
            why = read[first].detail or "nothing there"
            raise DataError(
                f"{self.where(first)} has a solution that is no answer ({why}), one of {len(self.dropped)}; "
                "drop_unreadable: true leaves them out"
            )
        self._places = [place for place in self._places if read[place].status is Status.OK]
        if not self._places:
            raise DataError(f"{self.name} holds no row with a solution that can be read")
        self._prompts = {place: read[place].prompts for place in self._places}

    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        query = str(row["problem"]).removeprefix("<image>").strip()
        reasoning = str(row["thinking"]).strip().removeprefix("<think>").removesuffix("</think>").strip()
        image = self.image(place, row["image"])
        return prompted_example(
            str(place), image, query, self._prompts[place], self.where(place), {"reasoning": reasoning}
        )


Solution = list[tuple[Box, tuple[Point, ...]]]
"""Boxes with an inclusive maximum, each with its points."""

_PAIR = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
_BOX = re.compile(rf"<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>")
_POINTS = re.compile(rf"<points>\s*{_PAIR}\s*,\s*{_PAIR}\s*</points>")


class SquashedSet(TableRows):
    """The rows of the set `name` (a key of SQUASHED). root: by default the set on the hub.

    restore: resize pictures to the original width and height. The rest: see TableRows.
    """

    def __init__(
        self,
        name: str,
        root: Path | str | None = None,
        *,
        split: str = "train",
        restore: bool = False,
        revision: str | None = None,
    ) -> None:
        columns = ("id", "problem", "solution", "image", "img_height", "img_width")
        (on_hub, self._read_solution), self._restore = SQUASHED[name], restore
        super().__init__(root or on_hub, split=split, columns=columns, revision=revision)

    def read(self, place: int, row: Mapping[str, Any]) -> Example:
        """See TableRows. Raises DataError for a solution that cannot be read."""
        where = self.where(place)
        stored = self.image(place, row["image"])
        original_wh = (int(row["img_width"]), int(row["img_height"]))
        pixel_wh = stored.width / original_wh[0], stored.height / original_wh[1]
        frame = Frame.resized(*stored.size)
        try:
            found = self._read_solution(str(row["solution"]))
            prompts = [
                MaskPrompt(_exclusive(box, pixel_wh, stored.size), points, (1,) * len(points), frame)
                for box, points in found
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} has a solution that cannot be read: {str(row['solution'])!r:.80}") from error
        image = stored.resize(original_wh, Image.Resampling.BICUBIC) if self._restore else stored
        return prompted_example(str(row["id"]), image, str(row["problem"]).strip(), prompts, where)


def _exclusive(box: Box, pixel_wh: tuple[float, float], size_wh: tuple[int, int]) -> Box:
    """A box whose maximum is the last pixel of the original, with the maximum behind it, inside the picture."""
    x1, y1, x2, y2 = box
    return (x1, y1, min(x2 + pixel_wh[0], size_wh[0]), min(y2 + pixel_wh[1], size_wh[1]))


def _tagged_solution(text: str) -> Solution:
    box, points = _BOX.search(text), _POINTS.search(text)
    if box is None or points is None:
        raise ValueError("no box and points")
    x1, y1, x2, y2 = map(float, box.groups())
    ax, ay, bx, by = map(float, points.groups())
    return [((x1, y1, x2, y2), ((ax, ay), (bx, by)))]


def _json_solution(text: str) -> Solution:
    found: Solution = []
    for entry in json.loads(text):
        x1, y1, x2, y2 = map(float, entry["bbox_2d"])
        x, y = map(float, entry["point_2d"])
        found.append(((x1, y1, x2, y2), ((x, y),)))
    return found


SQUASHED: Mapping[str, tuple[str, Callable[[str], Solution]]] = {
    "seg-zero": ("Ricky06662/refCOCOg_9k_840", _tagged_solution),
    "visionreasoner": ("Ricky06662/VisionReasoner_multi_object_7k_840", _json_solution),
}
"""Where each set lies on the hub, and how a solution is read. Seg-Zero's RefCOCOg sets of 2,000 and 9,000 expressions
have one object each, with two points on it; VisionReasoner's any number of objects, each with a box and a point."""
