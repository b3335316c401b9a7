"""An answer format of one's own: one box an object in a line, `box: x1 y1 x2 y2`, or `nothing`.

    segrl train examples/own_answer_format.yaml --out runs/own_answer_format

A format says how the policy is asked (`prompt`), how a gold answer is written (`render`), and how an answer is read
(`read`). The file lies beside the recipe. A policy that was trained with it names it in its segrl.json; loading such
a policy imports the file only if you allow it in the call.
"""

import re
from collections.abc import Sequence

from segrl.answers.base import AnswerFormat, think_block
from segrl.answers.mask_prompts import read_boxes, round_prompt
from segrl.answers.reading import Found
from segrl.types import Frame, MaskPrompt, Status

LINE = re.compile(r"box: (\d{1,6}) (\d{1,6}) (\d{1,6}) (\d{1,6})")


class Lines(AnswerFormat):
    """`box: 10 20 60 70` for each object."""

    name = "lines"
    required_parts = frozenset({"think", "bbox"})
    system = "First think inside <think></think>. Then write a line `box: x1 y1 x2 y2` for each object, or `nothing`."

    def prompt(self, query: str) -> str:
        """What the policy is sent after the image."""
        return f"Find {query}."

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The gold answer; ValueError for what the format cannot say."""
        boxes = [round_prompt(prompt).box_xyxy for prompt in prompts]
        if None in boxes:
            raise ValueError("lines cannot say points without a box")
        lines = [f"box: {' '.join(str(int(value)) for value in box)}" for box in boxes if box is not None]
        return "\n".join([think_block(reasoning), *(lines or ["nothing"])])

    def read(self, body: str, frame: Frame) -> Found:
        """What stands in the text after the reasoning. It never raises: `attempt` notes what is wrong as a status."""
        found = Found(parts={"bbox"}, is_complete=True)
        rows = [[float(value) for value in match.groups()] for match in LINE.finditer(body)]
        if not rows and body.strip() != "nothing":
            return Found(faults=[(Status.NO_ANSWER, "no line `box: x1 y1 x2 y2`")])
        boxes = found.attempt(read_boxes, rows) or []
        found.prompts = tuple(MaskPrompt(box_xyxy=box, frame=frame) for box in boxes)
        return found
