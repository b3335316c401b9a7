"""VisionReasoner's answer: a JSON list with one entry per object (arXiv 2505.12081).

    <think>…</think><answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, …]</answer>

A point lies on its object. Also read is what plain Qwen writes: a list, or one entry, without
answer tags, in a Markdown fence or bare, the first that the text holds; entries with only a box or
only a point; further keys, such as "label". `[]` says "nothing there".
"""

from __future__ import annotations

from collections.abc import Sequence

from segrl.answers.base import AnswerFormat, number_list, think_block
from segrl.answers.json_answer import read_entries, read_field
from segrl.answers.lenient_json import Literal
from segrl.answers.prompts import MAX_POINTS, check_count, group, read_box, read_points, round_prompt
from segrl.answers.reading import BadValues, Found
from segrl.answers.scan import BY_FIELDS
from segrl.types import Box, Frame, MaskPrompt, Point


class JsonList(AnswerFormat):
    """The format named `json-list`."""

    name = "json-list"
    required_parts = frozenset({"think", "answer", "bbox", "points"})
    scans = BY_FIELDS

    def prompt(self, query: str) -> str:
        """VisionReasoner's request in our words; the whole instruction is part of it."""
        return (
            f'Find every object that fits "{query.strip()}" in the image. Compare the objects you see before you '
            "choose. Write your reasoning in <think></think> and your answer in <answer></answer>, as a JSON list with "
            "the bounding box of each object and a point on it; the list is empty if nothing fits. Example:\n"
            "<think>your reasoning</think>"
            '<answer>[{"bbox_2d": [10,100,200,210], "point_2d": [30,110]}, '
            '{"bbox_2d": [225,296,706,786], "point_2d": [302,410]}]</answer>'
        )

    def render(self, prompts: Sequence[MaskPrompt], reasoning: str = "") -> str:
        """The box and the first foreground point of each prompt: the format has no room for more.

        Raises ValueError for a prompt with neither.
        """
        entries = ", ".join(_render_entry(round_prompt(prompt)) for prompt in prompts)
        return f"{think_block(reasoning)}<answer>[{entries}]</answer>"

    def read(self, body: str, frame: Frame) -> Found:
        """See AnswerFormat."""
        reading = Found()
        entries = read_entries(reading, body)
        if entries is None:
            return reading
        boxes = read_field(reading, "bbox", entries, "bbox_2d", read_box)
        points = read_field(reading, "points", entries, "point_2d", read_foreground)
        if boxes is not None and points is not None:
            reading.prompts = reading.attempt(to_prompts, boxes, points, frame) or ()
        return reading


def read_foreground(value: Literal) -> list[Point]:
    """`[x, y]`, or a list of such points with at least one. Raises BadValues."""
    is_one = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    points = read_points([value] if is_one else value)
    if not points:
        raise BadValues("an empty point")
    return points


def to_prompts(
    boxes: Sequence[Box | None], points: Sequence[list[Point] | None], frame: Frame
) -> tuple[MaskPrompt, ...]:
    """One mask prompt per entry. Raises BadValues."""
    check_count(sum(len(own or ()) for own in points), MAX_POINTS, "points")
    prompts: list[MaskPrompt] = []
    for box, own in zip(boxes, points, strict=True):
        if box is None and own is None:
            raise BadValues('an entry with neither "bbox_2d" nor "point_2d"')
        prompts += group([box] if box else (), own or (), [1] * len(own or ()), frame)
    return tuple(prompts)


def _render_entry(prompt: MaskPrompt) -> str:
    fields = [] if prompt.box_xyxy is None else [f'"bbox_2d": {number_list(prompt.box_xyxy)}']
    foreground = [xy for xy, label in zip(prompt.points_xy, prompt.labels, strict=True) if label]
    fields += [f'"point_2d": {number_list(xy)}' for xy in foreground[:1]]
    if not fields:
        raise ValueError("json-list cannot say background points without a box")
    return f"{{{', '.join(fields)}}}"
