"""FCoT: images with reasoning and mask prompts for a cold start, as Seg-R1's authors give them away.

One row of `geshang/FCoT` (its columns are those of the data set's card; the values an illustration):

    {"image": <picture>, "problem": "Identify and segment all the primary objects in the image.",
     "thinking": "<think>…</think>",
     "solution": "<bbox>[x1,y1,x2,y2]</bbox>, <points>[[x1,y1],…]</points>, <labels>[1,0,…]</labels>"}

and as an example: the problem as the query, `meta["reasoning"]` and `meta["prompts"]` (original pixels)
for SFT, and the filled box as the target, since the set holds no masks. Think tags around the thinking
are taken off. Not verified, for want of the files: that the numbers are pixels of the stored picture; if
they are about another size, `numbers_wh` says which. A row that cannot be read is an error unless
`drop_unreadable` is set; nothing else is filtered out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segrl import answers
from segrl.datasets.prompted import prompted_example
from segrl.datasets.tables import TableRows
from segrl.errors import DataError
from segrl.types import ORIGINAL, Example, Frame, Status

HUB_NAME = "geshang/FCoT"


class FCoT(TableRows):
    """root, split, revision, sample: see TableRows; the default is the data set on the hub.

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
        sample: Mapping[str, int] | None = None,
    ) -> None:
        columns = ("image", "thinking", "problem", "solution")
        super().__init__(root, split=split, columns=columns, revision=revision, sample=sample)
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
        """See TableRows."""
        query = str(row["problem"]).removeprefix("<image>").strip()
        reasoning = str(row["thinking"]).strip().removeprefix("<think>").removesuffix("</think>").strip()
        image = self.image(place, row["image"])
        return prompted_example(
            str(place), image, query, self._prompts[place], self.where(place), {"reasoning": reasoning}
        )
